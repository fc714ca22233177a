package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/larder-project/larder/cmd/larder/ecrrules"
	"github.com/larder-project/larder/remotes"
)

// parallelValidations bounds how many rules are asked at a time.
const parallelValidations = 8

func newRulesValidateCommand(o *options) *cobra.Command {
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "validate [PREFIX]",
		Short: "Ask the upstreams of rules whether they work",
		Long: `Asks every upstream of each rule, or of one: is it there, is it a registry, can
the rule's credential be read, is it accepted. Like ECR's
ValidatePullThroughCacheRule it answers ecrRepositoryPrefix, isValid and failure.
If routes put several upstreams behind a rule's host, all must work.

It asks from this process, with the configuration's credentials, routes and
limits: the daemon need not run. The exit code is 1 if any rule is invalid.`,
		Example: `  larder rules validate
  larder rules validate docker-hub
  larder rules validate --json | jq '.pullThroughCacheRules[] | select(.isValid | not)'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.completePrefixes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if timeout <= 0 {
				return &usageError{fmt.Errorf("--timeout %s: want more than 0s", timeout)}
			}
			answers, err := o.validateRules(cmd.Context(), args, timeout)
			if err != nil {
				return err
			}
			if asJSON {
				err = o.printJSON(rulesJSON[validity]{Rules: answers})
			} else {
				err = printValidity(o.stdout, answers)
			}
			return errors.Join(err, invalidRules(answers))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "longest `time` that a rule may take")
	return cmd
}

// validity is what ValidatePullThroughCacheRule answers.
type validity struct {
	ecrrules.Entry
	IsValid bool   `json:"isValid"`
	Failure string `json:"failure,omitempty"`
}

// validateRules asks for all rules, or for those of the prefixes.
func (o *options) validateRules(ctx context.Context, prefixes []string, timeout time.Duration) ([]validity, error) {
	cfg, set, err := o.loadRules()
	if err != nil {
		return nil, err
	}
	rules := set.All()
	if len(prefixes) > 0 {
		one, err := set.one(prefixes[0])
		if err != nil {
			return nil, err
		}
		rules = []remotes.Rule{one}
	}
	v, err := o.validatorOf(cfg, set.Rules)
	if err != nil {
		return nil, err
	}
	defer v.Pool.Close()
	answers := make([]validity, len(rules))
	var group errgroup.Group
	group.SetLimit(parallelValidations)
	for i, r := range rules {
		group.Go(func() error {
			ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
			defer cancel()
			answers[i] = validity{Entry: set.json(r).Entry, IsValid: true}
			if err := v.Validate(ctx, r); err != nil {
				answers[i].IsValid, answers[i].Failure = false, failureText(ctx, err)
			}
			return nil
		})
	}
	_ = group.Wait() // no rule's failure is one of the verb
	return answers, ctx.Err()
}

// failureText is one line.
func failureText(ctx context.Context, err error) string {
	text := strings.ReplaceAll(withoutKind(err.Error()), "\n", "; ")
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		text += "; " + context.Cause(ctx).Error()
	}
	return text
}

func printValidity(w io.Writer, answers []validity) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "PREFIX\tUPSTREAM\tVALID\tFAILURE")
	for _, a := range answers {
		word := "yes"
		if !a.IsValid {
			word = "no"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", a.ECRRepositoryPrefix, a.UpstreamRegistryURL, word, orDash(a.Failure))
	}
	return tw.Flush()
}

func invalidRules(answers []validity) error {
	var bad []string
	for _, a := range answers {
		if !a.IsValid {
			bad = append(bad, a.ECRRepositoryPrefix)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d rules invalid: %s", len(bad), len(answers), strings.Join(bad, ", "))
}
