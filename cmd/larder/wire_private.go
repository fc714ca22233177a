package main

import (
	"time"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

// accessOf returns how long it is remembered who may have what is private.
func accessOf(cfg config.Private) remotes.Access {
	return remotes.Access{
		Verified: time.Duration(cfg.Verified), Grace: time.Duration(cfg.Grace), Refused: time.Duration(cfg.Refused),
	}
}
