package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/plugin/containerdconf"
	"github.com/larder-project/larder/plugin/hosts"
)

// containerdState is what --json prints of containerd's own configuration.
type containerdState struct {
	// Mode is what it is now, or, with --print, would be.
	Mode    containerdconf.Mode     `json:"mode"`
	Files   []containerdconf.File   `json:"files,omitempty"`
	Changes []containerdconf.Change `json:"changes,omitempty"`
	// Restart says that containerd has to be restarted to take what was changed.
	Restart bool `json:"restart,omitempty"`
}

// setMode brings containerd's configuration to the mode. That of before stays if none was given.
func (s containerdSetup) setMode(ctx context.Context, o *options) (st containerdState, err error) {
	present, _, err := containerdconf.Present(s.containerdConfig)
	if err != nil {
		return st, err
	}
	if st.Mode = s.mode; st.Mode == "" {
		st.Mode = present
	}
	if st.Mode == containerdconf.Mirror {
		if present == containerdconf.Mirror || s.print {
			return st, nil
		}
		return s.undoMode(ctx)
	}
	cfg, err := o.loadConfig()
	if err != nil {
		return st, err
	}
	co := containerdconf.Options{
		Config: s.containerdConfig, Program: s.program, Mode: st.Mode, Socket: string(cfg.Proxy.Socket), CertsDir: s.certsDir, Force: s.force, Forget: s.forget,
	}
	if s.print {
		st.Files, err = containerdconf.Plan(ctx, co)
		return st, err
	}
	if !s.force {
		err = checkReady(ctx, cfg.Proxy, st.Mode)
	}
	if err == nil {
		st.Changes, err = containerdconf.Apply(ctx, co)
	}
	if err != nil {
		st.Mode = present
	}
	st.noteRestart()
	return st, err
}

func (s containerdSetup) undoMode(ctx context.Context) (containerdState, error) {
	st := containerdState{Mode: containerdconf.Mirror}
	var err error
	st.Changes, err = containerdconf.Undo(ctx, containerdconf.Options{Config: s.containerdConfig, Force: s.force, Forget: s.forget})
	if err != nil {
		if present, _, perr := containerdconf.Present(s.containerdConfig); perr == nil {
			st.Mode = present
		}
	}
	st.noteRestart()
	return st, err
}

func (st *containerdState) noteRestart() {
	for _, ch := range st.Changes {
		st.Restart = st.Restart || ch.Action != containerdconf.ActionUnchanged && ch.Action != containerdconf.ActionLeft
	}
}

// healthTime is how long larder has to say that it serves containerd.
const healthTime = 3 * time.Second

// modeOf is the mode that larder's own configuration serves.
func modeOf(cfg config.Proxy) containerdconf.Mode {
	switch {
	case !cfg.Enabled:
		return containerdconf.Mirror
	case cfg.HasContent():
		return containerdconf.Proxy
	}
	return containerdconf.MirrorDiff
}

// checkReady refuses a mode that larder's own configuration does not serve, or that nobody serves now: a containerd that
// is restarted could start no pod.
func checkReady(ctx context.Context, cfg config.Proxy, mode containerdconf.Mode) error {
	if modeOf(cfg) != mode {
		services := `["diff"]`
		if mode == containerdconf.Proxy {
			services = `["content", "diff"]`
		}
		return fmt.Errorf("larder's configuration does not serve mode %s; set [proxy] enabled = true and services = %s, restart larder, and run this again (or --force): %w",
			mode, services, errdefs.ErrFailedPrecondition)
	}
	socket := "unix://" + string(cfg.Socket)
	conn, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("proxy.socket %s: %w", cfg.Socket, err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err == nil && answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		err = errors.New(answer.GetStatus().String())
	}
	if err != nil {
		return fmt.Errorf("larder does not answer at proxy.socket %s, and containerd would need it; start larder serve and run this again (or --force): %w: %w",
			cfg.Socket, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// writeTo prints what was done to containerd's configuration, or would be.
func (st containerdState) writeTo(w io.Writer) {
	for _, f := range st.Files {
		fmt.Fprintf(w, "\n### %s (%s)\n%s", f.Path, f.Action, f.Content)
	}
	for _, ch := range st.Changes {
		fmt.Fprintf(w, "%-9s %s\n", ch.Action, ch.Path)
		if ch.Backup != "" {
			fmt.Fprintf(w, "%-9s %s (--undo puts it back)\n", "kept", ch.Backup)
		}
		if ch.Why != "" {
			fmt.Fprintf(w, "%-9s %s\n", "", ch.Why)
		}
	}
}

// advise says what is left to do, what the mode costs, and how to go back.
func (st containerdState) advise(w io.Writer) {
	if st.Restart {
		fmt.Fprintln(w, "\nRestart containerd to have it so: systemctl restart containerd (larder does not do it; running containers go on)")
	}
	switch st.Mode {
	case containerdconf.MirrorDiff:
		fmt.Fprint(w, `
While larder is down, running containers go on and what was pulled can be started, but no layer can be unpacked: pulls
fail. Go back with: larder setup containerd --undo, and restart containerd.
`)
	case containerdconf.Proxy:
		fmt.Fprint(w, `
While larder is down, running containers go on, but no image can be pulled and no pod started. Have larder started
before containerd, and again when it fails. Go back with containerd stopped: larder eject, larder setup containerd
--undo, and start containerd.
`)
	case containerdconf.Mirror:
	}
}

// managed finds programs that write containerd's configuration anew, of which larder's is no part then.
func managed(mode containerdconf.Mode) (found []hosts.Finding) {
	if mode == containerdconf.Mirror {
		return nil
	}
	for _, f := range []hosts.Finding{{
		Path:    "/etc/rancher",
		Problem: "k3s and RKE2 run a containerd of their own, and write its configuration at each start; larder's does not last there",
		Fix:     "put what --print shows into their config-v3.toml.tmpl, below {{ template \"base\" . }}",
	}, {
		Path:    "/etc/eks",
		Problem: "nodeadm writes containerd's configuration at each boot; larder's does not last there",
		Fix:     "put what --print shows into spec.containerd.config of a NodeConfig in /etc/eks/nodeadm.d",
	}} {
		if _, err := os.Stat(f.Path); err == nil {
			found = append(found, f)
		}
	}
	return found
}

func completeModes(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var all []string
	for _, m := range containerdconf.Modes() {
		if strings.HasPrefix(string(m), prefix) {
			all = append(all, string(m))
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}
