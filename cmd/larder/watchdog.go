package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// watchdog tells systemd, where that watches (WatchdogSec= of the unit), that
// larder answers: not that its process is there. It is ended and started again
// when it does not, so that containerd does not wait for it.
func watchdog(ctx context.Context, url string, logger *slog.Logger) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logger.Warn("systemd watches larder, and does not say how", "err", err)
	}
	if interval <= 0 {
		return
	}
	client := &http.Client{Timeout: interval / 3, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		if err := answers(ctx, client, url); err == nil {
			notify(logger, daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			logger.Error("larder does not answer itself: systemd will start it again", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// answers asks the mirror's own endpoint, which is more than a process that runs:
// it accepts connections and serves them. One that sends clients away, because
// there are too many of them, is alive.
func answers(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	return resp.Body.Close() // also 403, of a mirror with a secret
}
