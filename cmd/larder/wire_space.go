package main

import (
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/config"
)

func budgetOf(cfg config.Space) cache.Budget {
	return cache.Budget{
		MaxSize: amountOf(cfg.MaxSize), MinFree: amountOf(cfg.MinFree),
		High: float64(cfg.High) / 100, Low: float64(cfg.Low) / 100,
	}
}

func amountOf(a config.Amount) cache.Amount {
	return cache.Amount{Bytes: int64(a.Bytes), Percent: float64(a.Percent)}
}
