package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/cmd/larder/doctor"
	"github.com/larder-project/larder/plugin/hosts"
)

// answerTime is what the daemon has to answer on this machine.
const answerTime = 5 * time.Second

// checkConfigFile loads the configuration; nil if it cannot be used.
func checkConfigFile(o *options) (*config.Config, []doctor.Result) {
	const check = "config"
	name := cmp.Or(o.configPath, config.DefaultPath)
	cfg, err := o.loadConfig()
	var warnings strings.Builder
	if err == nil {
		err = checkWiring(cfg, newWarner(&warnings))
	} else {
		cfg = nil
	}
	var results []doctor.Result
	for _, one := range flatten(err) {
		status, remedy := doctor.Problem, "correct it, then: larder config check"
		if errors.Is(one, fs.ErrPermission) {
			status, remedy = doctor.Unknown, "run larder doctor as root"
		}
		results = append(results, doctor.Bad(status, check, withoutKind(one.Error()), remedy))
	}
	if cfg == nil {
		return nil, results
	}
	told := cfg.Warnings()
	for line := range strings.Lines(warnings.String()) {
		told = append(told, strings.TrimPrefix(strings.TrimSpace(line), "warning: "))
	}
	for _, text := range told {
		results = append(results, doctor.Bad(doctor.Warning, check, text, ""))
	}
	if len(results) > 0 {
		return cfg, results
	}
	if _, err := os.Stat(name); o.configPath == "" && errors.Is(err, fs.ErrNotExist) {
		return cfg, []doctor.Result{doctor.Fine(check, "no %s, the defaults hold", name)}
	}
	return cfg, []doctor.Result{doctor.Fine(check, "%s", name)}
}

// daemonAnswer is who answers on the admin socket; status is nil if nobody does.
type daemonAnswer struct {
	status *admin.Status
	result doctor.Result
}

func askDaemonOf(ctx context.Context, cfg *config.Config) daemonAnswer {
	const check = "daemon"
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	s, err := admin.NewClient(string(cfg.Admin.Address)).Status(ctx)
	switch {
	case errdefs.IsUnavailable(err):
		return daemonAnswer{result: doctor.Bad(doctor.Warning, check, fmt.Sprintf("none on %s: containerd asks the registries themselves", cfg.Admin.Address), "start it: larder serve")}
	case errdefs.IsPermissionDenied(err):
		return daemonAnswer{result: doctor.Bad(doctor.Unknown, check, withoutKind(err.Error()), "")}
	case err != nil:
		return daemonAnswer{result: doctor.Bad(doctor.Problem, check, withoutKind(err.Error()), "see its log, and restart it")}
	case s.Version != version:
		return daemonAnswer{&s, doctor.Bad(doctor.Warning, check, fmt.Sprintf("it is larder %s, and this is %s", s.Version, version), "restart the daemon")}
	case s.Root != string(cfg.Root):
		return daemonAnswer{&s, doctor.Bad(doctor.Warning, check, fmt.Sprintf("its store is %s, and the configuration says %s", s.Root, cfg.Root), "restart the daemon")}
	}
	return daemonAnswer{&s, doctor.Fine(check, "larder %s, process %d", s.Version, s.PID)}
}

// files says how many files the daemon may open.
func (d daemonAnswer) files() doctor.Result {
	if d.status == nil {
		return doctor.OwnFiles()
	}
	return doctor.DaemonFiles(d.status.PID)
}

// checkMirror asks the mirror as containerd does.
func checkMirror(ctx context.Context, cfg *config.Config, daemon daemonAnswer) doctor.Result {
	const check = "mirror"
	url, err := hosts.MirrorURL(string(cfg.Mirror.Address))
	if err != nil {
		return doctor.Bad(doctor.Problem, check, withoutKind(err.Error()), "set mirror.address to a fixed port")
	}
	secret, err := readSecret(string(cfg.Mirror.SecretFile))
	if err != nil {
		return secretResult(check, err)
	}
	status, api, err := ping(ctx, url+"/v2/", secret)
	var refused *net.OpError
	switch {
	case err != nil && daemon.status == nil && errors.As(err, &refused):
		return doctor.Bad(doctor.Warning, check, url+" is not listened on, as no daemon runs", "start it: larder serve")
	case err != nil:
		return doctor.Bad(doctor.Problem, check, err.Error(), "see the daemon's log; after a change of mirror.address restart it")
	case api == "" && status != http.StatusForbidden:
		return doctor.Bad(doctor.Problem, check, url+" is answered by something that is no registry", "set mirror.address to a free port, then: larder setup containerd")
	case status == http.StatusForbidden:
		return doctor.Bad(doctor.Problem, check, url+" refuses the node secret of "+string(cfg.Mirror.SecretFile), "restart the daemon, then: larder setup containerd")
	case status != http.StatusOK:
		return doctor.Bad(doctor.Problem, check, fmt.Sprintf("%s/v2/ answered %d", url, status), "see the daemon's log")
	case daemon.status == nil && daemon.result.Status == doctor.Warning:
		return doctor.Bad(doctor.Warning, check, url+" answers, and is not the daemon on "+string(cfg.Admin.Address), "see which program has the port (ss -ltnp)")
	}
	return doctor.Fine(check, "%s answers", url)
}

// secretResult is that of a check which needs the node secret and has it not.
func secretResult(check string, err error) doctor.Result {
	if errdefs.IsNotFound(err) {
		return doctor.Bad(doctor.Problem, check, withoutKind(err.Error()), "larder setup containerd, then restart the daemon")
	}
	return doctor.Bad(doctor.Unknown, check, withoutKind(err.Error()), "run larder doctor as the daemon's user (root on most nodes)")
}

// ping asks for /v2/ past any proxy of the environment.
func ping(ctx context.Context, url, secret string) (status int, api string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	if secret != "" {
		req.Header.Set(hosts.SecretHeader, secret)
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the secret stays here
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 1<<10)
	return resp.StatusCode, resp.Header.Get("Docker-Distribution-Api-Version"), nil
}
