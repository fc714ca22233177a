package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/cmd/larder/doctor"
	"github.com/larder-project/larder/plugin/cri"
	"github.com/larder-project/larder/plugin/hosts"
)

// nodeDoctor holds the flags of larder doctor.
type nodeDoctor struct {
	certsDir, containerdConfig string
	kubeletConfig, kubeletDir  string
	online, asJSON             bool
	timeout                    time.Duration
}

func newDoctorCommand(o *options) *cobra.Command {
	var d nodeDoctor
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this node: configuration, daemon, disk, containerd, kubelet",
		Long: `Checks what larder needs on this node, with or without a running daemon, and says
what to do about what it finds. It changes nothing, and asks no upstream unless
--online is given.

A check ends as ok, warning (it works, and probably not as meant), problem (it does
not work, or will not for long) or unknown (it could not be looked at). The exit
code is 1 if there is a problem, and 0 otherwise.`,
		Example: `  sudo larder doctor
  sudo larder doctor --online
  larder doctor --json | jq '.checks[] | select(.status != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.timeout <= 0 {
				return &usageError{fmt.Errorf("--timeout %s: want more than 0s", d.timeout)}
			}
			return d.run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.certsDir, "certs-d", hosts.DefaultCertsDir, "containerd's config_path `folder`")
	f.StringVar(&d.containerdConfig, "containerd-config", hosts.DefaultContainerdConfig, "containerd's config `file`")
	f.StringVar(&d.kubeletConfig, "kubelet-config", "", "the kubelet's config `file` (default "+doctor.KubeletFiles()[0]+" or "+doctor.KubeletFiles()[1]+")")
	f.StringVar(&d.kubeletDir, "kubelet-config-dir", "", "`folder` of the kubelet's drop-ins, *.conf (default that file's name with .d)")
	f.BoolVar(&d.online, "online", false, "ask the upstreams of all rules and routes, too")
	f.DurationVar(&d.timeout, "timeout", 30*time.Second, "longest `time` that one upstream may take with --online")
	f.BoolVar(&d.asJSON, "json", false, "print JSON")
	return cmd
}

func (d nodeDoctor) run(ctx context.Context, o *options) error {
	var err error
	if d.certsDir, err = filepath.Abs(d.certsDir); err != nil { // as setup does, to compare the same
		return fmt.Errorf("--certs-d %s: %w", d.certsDir, err)
	}
	report := doctor.NewReport(d.check(ctx, o))
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.asJSON {
		err = o.printJSON(report)
	} else {
		err = report.Print(o.stdout)
	}
	if err == nil && !report.Healthy {
		err = errUnhealthy(report.Problems)
	}
	return err
}

func errUnhealthy(problems int) error {
	if problems == 1 {
		return errors.New("1 problem on this node")
	}
	return fmt.Errorf("%d problems on this node", problems)
}

// check makes all checks, in the order in which one thing needs another.
func (d nodeDoctor) check(ctx context.Context, o *options) []doctor.Result {
	cfg, results := checkConfigFile(o)
	if cfg == nil {
		for _, check := range []string{"daemon", "mirror", "store folder", "store disk", "hosts.toml"} {
			results = append(results, doctor.Bad(doctor.Unknown, check, "it needs the configuration", ""))
		}
		defaults := config.Default()
		results = append(results, doctor.OwnFiles())
		results = append(results, doctor.Runtime(ctx, cri.DefaultAddress, false)...)
		return append(results, d.kubelet(&defaults)...)
	}
	daemon := askDaemonOf(ctx, cfg)
	results = append(results, daemon.result)
	results = append(results, checkMirror(ctx, cfg, daemon), daemon.files())
	results = append(results, checkStore(cfg, time.Now())...)
	if cfg.Seed.Enabled {
		results = append(results, doctor.Seed(string(cfg.Seed.Content), string(cfg.Root)))
	}
	results = append(results, d.containerd(cfg)...)
	results = append(results, doctor.Mode(d.containerdConfig, modeOf(cfg.Proxy), string(cfg.Proxy.Socket)))
	results = append(results, doctor.Runtime(ctx, runtimeSocket(cfg), cfg.Space.CRI != "")...)
	results = append(results, d.kubelet(cfg)...)
	if d.online {
		results = append(results, checkUpstreams(ctx, o, cfg, d.timeout)...)
	}
	return results
}

func runtimeSocket(cfg *config.Config) string {
	if cfg.Space.CRI != "" {
		return string(cfg.Space.CRI)
	}
	return cri.DefaultAddress
}

// checkStore looks at the store's folder and what it is on.
func checkStore(cfg *config.Config, now time.Time) []doctor.Result {
	root := string(cfg.Root)
	results := doctor.Folder(root)
	disk, err := doctor.Look(root)
	if err != nil {
		results = append(results, doctor.Bad(doctor.Unknown, "store disk", err.Error(), ""))
	} else {
		results = append(results, disk.Check(growthOf(cfg.Space, disk.Total).MinFree)...)
	}
	return append(results, doctor.Format(root), doctor.Times(root, now))
}

// containerd compares containerd's files with what larder setup containerd would
// write for the configuration.
func (d nodeDoctor) containerd(cfg *config.Config) []doctor.Result {
	const check = "hosts.toml"
	mirror, err := hosts.MirrorURL(string(cfg.Mirror.Address))
	if err != nil {
		return []doctor.Result{doctor.Bad(doctor.Problem, check, withoutKind(err.Error()), "set mirror.address to a fixed port")}
	}
	secret, err := readSecret(string(cfg.Mirror.SecretFile))
	if err != nil {
		return []doctor.Result{secretResult(check, err)}
	}
	return doctor.Containerd(hosts.Options{CertsDir: d.certsDir, MirrorURL: mirror, Secret: secret}, d.containerdConfig)
}

// kubelet compares the store's budget with what the kubelet does when the disk
// fills.
func (d nodeDoctor) kubelet(cfg *config.Config) []doctor.Result {
	kubelet, err := doctor.ReadKubelet(d.kubeletConfig, d.kubeletDir)
	if err != nil {
		return []doctor.Result{doctor.KubeletUnread(err)}
	}
	disk, err := doctor.Look(string(cfg.Root))
	if err != nil {
		return []doctor.Result{doctor.Bad(doctor.Unknown, "kubelet", err.Error(), "")}
	}
	return kubelet.Compare(disk, doctor.DefaultPlaces(), growthOf(cfg.Space, disk.Total), 0)
}

// growthOf is how far the store may grow on a disk of total bytes.
func growthOf(cfg config.Space, total int64) doctor.Budget {
	b := doctor.Budget{MaxSize: amountOf(cfg.MaxSize).Of(total), MinFree: amountOf(cfg.MinFree).Of(total)}
	if b.MaxSize == 0 { // off
		b.MaxSize = total
	}
	return b
}
