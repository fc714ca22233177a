package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

func newRulesTryCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test REF",
		Short: "Show how a name maps, step by step",
		Long: `Shows which of the three forms a name has, the rule that maps it, the name under
which larder stores it, how rules and templates have it treated there, and the
upstreams that are asked for it in order. Nothing is asked. A short name is Docker Hub's, as for containerd's clients: write
localhost/PREFIX/… for a name on larder's own address.

The exit code is 1 if nothing covers the name, or allow or deny refuse it.`,
		Example: `  larder rules test localhost/docker-hub/library/nginx:1.29
  larder rules test 123456789012.dkr.ecr.eu-central-1.amazonaws.com/quay/prometheus/prometheus:v3
  larder rules test --json nginx | jq -r .upstreams[0]`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeReferences,
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := o.tryName(args[0])
			if t == nil {
				return err
			}
			if asJSON {
				return errors.Join(err, o.printJSON(t))
			}
			return errors.Join(err, t.print(o.stdout))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// trial is how a name maps.
type trial struct {
	Name      string       `json:"name"` // in full
	Form      remotes.Form `json:"form"`
	Rule      *ruleJSON    `json:"rule"`
	Reason    string       `json:"reason,omitempty"` // why no rule maps it
	Stored    string       `json:"stored,omitempty"`
	Treatment *treatment   `json:"treatment,omitempty"`
	Refused   string       `json:"refused,omitempty"` // by allow or deny
	Upstreams []string     `json:"upstreams"`
	Hint      string       `json:"hint,omitempty"`
}

// treatment is what holds for a stored name, whatever the rule says that maps
// it.
type treatment struct {
	Mode    remotes.Mode    `json:"mode"`
	Private remotes.Privacy `json:"private"`
	Deleted string          `json:"deleted"`
	Window  string          `json:"window,omitempty"` // of a tag; "unlimited": it is never checked
	// Lifecycle says whose lifecycle policy holds, "" if there is none.
	Lifecycle string `json:"lifecyclePolicyOf,omitempty"`
}

func treatmentOf(cfg *config.Config, policies remotes.Policies, ref remotes.Reference) (*treatment, error) {
	fresh, err := freshnessOf(cfg.Freshness)
	if err != nil {
		return nil, err
	}
	p := policies.For(ref.Repository)
	t := &treatment{Mode: p.Mode, Private: p.Private, Deleted: p.Deleted}
	_, t.Lifecycle, _ = p.Lifecycle()
	if ref.Tag == "" {
		return t, nil
	}
	window, always := p.WindowOf(fresh, ref)
	t.Window = config.Duration(window).String()
	if always {
		t.Window = "unlimited"
	}
	return t, nil
}

func (t *treatment) String() string {
	text := fmt.Sprintf("%s, private: %s", t.Mode, t.Private)
	switch {
	case t.Window == "unlimited":
		text += ", window: unlimited, once stored it never moves"
	case t.Window != "":
		text += fmt.Sprintf(", window: %s, when deleted upstream: %s", t.Window, t.Deleted)
	}
	if t.Lifecycle != "" {
		text += ", lifecycle policy: of " + t.Lifecycle
	}
	return text
}

// tryName maps a name. A trial that is not nil is as far as it goes.
func (o *options) tryName(text string) (*trial, error) {
	cfg, set, err := o.loadRulesWithPolicies()
	if err != nil {
		return nil, err
	}
	ref, err := remotes.ParseReference(text)
	if err != nil {
		return nil, err
	}
	routes, _, err := routesOf(cfg)
	if err != nil {
		return nil, err
	}
	names, err := namesOf(cfg, set.Rules, mirrorAddr(cfg.Mirror.Address))
	if err != nil {
		return nil, err
	}
	e, err := names.Explain(routes, ref.Host, ref.Path)
	t := &trial{Name: ref.String(), Form: e.Form, Reason: withoutKind(e.Reason), Upstreams: []string{}}
	if e.Rule != nil {
		rule := set.json(*e.Rule)
		t.Rule = &rule
	}
	if err == nil {
		stored := remotes.Reference{Repository: e.Repository, Tag: ref.Tag, Digest: ref.Digest}
		t.Stored = stored.String()
		var policies remotes.Policies
		if policies, err = policiesOf(cfg, set.Rules); err != nil {
			return nil, err
		}
		if t.Treatment, err = treatmentOf(cfg, policies, stored); err != nil {
			return nil, err
		}
		if err = policies.Permit(e.Repository); err != nil {
			t.Refused = withoutKind(err.Error())
		}
	}
	for _, ep := range e.Upstreams {
		t.Upstreams = append(t.Upstreams, ep.String())
	}
	// Who leaves the host away may mean a rule's prefix and gets Docker Hub.
	if _, _, ruleErr := set.Map(ref.Path); ruleErr == nil && e.Rule == nil && ref.Host == remotes.DockerHub && !strings.HasPrefix(text, ref.Host) {
		t.Hint = fmt.Sprintf("a rule covers %s on larder's own address: write localhost/%s", ref.Path, text)
	}
	return t, err
}

func (t *trial) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(tw, "name\t%s\n", t.Name)
	fmt.Fprintf(tw, "form\t%s\n", formText(t.Form))
	if r := t.Rule; r != nil {
		fmt.Fprintf(tw, "rule\t%s -> %s, upstream prefix %s (%s)\n", r.ECRRepositoryPrefix, r.UpstreamRegistryURL, r.UpstreamRepositoryPrefix, r.Origin)
	} else {
		fmt.Fprintf(tw, "rule\tnone: %s\n", t.Reason)
	}
	fmt.Fprintf(tw, "stored as\t%s\n", orDash(t.Stored))
	if t.Treatment != nil {
		fmt.Fprintf(tw, "treated\t%s\n", t.Treatment)
	}
	if t.Refused != "" {
		fmt.Fprintf(tw, "refused\t%s\n", t.Refused)
	}
	for i, u := range t.Upstreams {
		fmt.Fprintf(tw, "upstream %d\t%s\n", i+1, u)
	}
	if t.Hint != "" {
		fmt.Fprintf(tw, "hint\t%s\n", t.Hint)
	}
	return tw.Flush()
}

func formText(f remotes.Form) string {
	switch f {
	case remotes.FormOwn:
		return "larder's own address: a rule's prefix leads"
	case remotes.FormECR:
		return "ECR registry host, to which the rules apply"
	}
	return "registry host: the name is what it says"
}
