package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// Error is one problem of a configuration. What Load and Validate return
// joins one or more of them.
type Error struct {
	// File is the path as it was given. Empty: not from a file.
	File string
	// Line and Column count from 1, Column in bytes. 0: no place in the file.
	Line, Column int
	// Key is the full key, for instance rules[2].upstream_registry_url.
	// Empty: the problem is the file as a whole.
	Key string
	// Err says what is wrong. It wraps errdefs.ErrInvalidArgument, or the
	// error of the file system.
	Err error
}

// Error returns file:line:column: key: what is wrong, without the parts that
// are not known.
func (e *Error) Error() string {
	var b strings.Builder
	switch {
	case e.Line > 0:
		fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	case e.File != "":
		b.WriteString(e.File + ": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	// Every line would end in the sentinel's words, which tell a user nothing.
	b.WriteString(strings.TrimSuffix(e.Err.Error(), ": "+errdefs.ErrInvalidArgument.Error()))
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// join returns the problems as one error, nil if there are none.
func join(problems []*Error) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// invalid returns an error of the given text for a value or a key.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}
