package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/admin"
)

func newVersionCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version, and that of the running daemon",
		Example: "  larder version\n  larder version --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			res := versionResult{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			res.Daemon = o.askDaemon(cmd.Context())
			if asJSON {
				return o.printJSON(res)
			}
			_, err := fmt.Fprintf(o.stdout, "larder %s (%s, %s)\n", res.Version, res.Go, res.Platform)
			if d := res.Daemon; d != nil && err == nil {
				_, err = fmt.Fprintf(o.stdout, "daemon %s, process %d, mirror %s, store %s\n", d.Version, d.PID, d.Mirror, d.Root)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// versionResult is what --json prints.
type versionResult struct {
	Version  string        `json:"version"`
	Go       string        `json:"go"`
	Platform string        `json:"platform"`
	Daemon   *admin.Status `json:"daemon,omitempty"`
}

// askDaemon returns who answers on the admin socket; nil if nobody does, or
// if the configuration cannot be read: a version is printed all the same.
func (o *options) askDaemon(ctx context.Context) *admin.Status {
	client, err := o.client()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	status, err := client.Status(ctx)
	if err != nil {
		return nil
	}
	status.Upstreams, status.Sources = nil, nil // who answers, and not how it does: that is "status"
	return &status
}
