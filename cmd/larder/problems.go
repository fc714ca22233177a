package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/larder-project/larder/cmd/larder/config"
)

// misconfigured makes problems of the configuration file of what was found when
// its parts were put together. Nil stays nil.
func (o *options) misconfigured(file string, err error) error {
	var errs []error
	for _, one := range flatten(err) {
		errs = append(errs, &config.Error{File: cmp.Or(file, config.DefaultPath), Err: one})
	}
	return errors.Join(errs...)
}

// eachPrefixed puts a name before every problem.
func eachPrefixed(name string, err error) error {
	var errs []error
	for _, one := range flatten(err) {
		errs = append(errs, fmt.Errorf("%s: %w", name, one))
	}
	return errors.Join(errs...)
}

// flatten takes joined errors apart. Those that wrap several in one text stay
// whole.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	many, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(many.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	var all []error
	for _, one := range many.Unwrap() {
		all = append(all, flatten(one)...)
	}
	return all
}

// warner is a slog.Handler for verbs: it writes what a daemon would log as
// warnings for a person, one line each.
type warner struct {
	mu    *sync.Mutex
	w     io.Writer
	attrs string
}

func newWarner(w io.Writer) *slog.Logger { return slog.New(warner{mu: new(sync.Mutex), w: w}) }

// Enabled implements slog.Handler.
func (warner) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h warner) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString("warning: " + r.Message + h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(attrText(a))
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, b.String()+"\n")
	return err
}

// WithAttrs implements slog.Handler.
func (h warner) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		h.attrs += attrText(a)
	}
	return h
}

// WithGroup implements slog.Handler. Groups tell a person nothing.
func (h warner) WithGroup(string) slog.Handler { return h }

func attrText(a slog.Attr) string {
	text := strings.ReplaceAll(withoutKind(a.Value.Resolve().String()), "\n", "; ")
	if a.Key == "err" {
		return ": " + text
	}
	return fmt.Sprintf(", %s %s", a.Key, text)
}
