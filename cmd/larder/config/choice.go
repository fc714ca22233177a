package config

import (
	"log/slog"
	"slices"
	"strings"

	"github.com/larder-project/larder/remotes"
)

// Level is the least severity that is logged.
type Level string

// The levels.
const (
	LevelDebug Level = "debug"
	LevelInfo  Level = "info"
	LevelWarn  Level = "warn"
	LevelError Level = "error"
)

// UnmarshalText accepts the four levels and returns
// errdefs.ErrInvalidArgument for anything else.
func (l *Level) UnmarshalText(text []byte) error {
	return choose(l, text, LevelDebug, LevelInfo, LevelWarn, LevelError)
}

// Slog returns the level as log/slog has it.
func (l Level) Slog() slog.Level {
	switch l {
	case LevelDebug:
		return slog.LevelDebug
	case LevelWarn:
		return slog.LevelWarn
	case LevelError:
		return slog.LevelError
	}
	return slog.LevelInfo
}

// Format is the form of a log line.
type Format string

// The formats.
const (
	FormatText Format = "text"
	FormatJSON Format = "json"
)

// UnmarshalText accepts the two formats and returns
// errdefs.ErrInvalidArgument for anything else.
func (f *Format) UnmarshalText(text []byte) error {
	return choose(f, text, FormatText, FormatJSON)
}

// Unlisted is the policy for registries that no rule or route names.
type Unlisted string

// The policies for unlisted registries.
const (
	UnlistedAllow Unlisted = "allow"
	UnlistedDeny  Unlisted = "deny"
)

// UnmarshalText accepts the two policies and returns
// errdefs.ErrInvalidArgument for anything else.
func (u *Unlisted) UnmarshalText(text []byte) error {
	return choose(u, text, UnlistedAllow, UnlistedDeny)
}

// Deleted is the policy for stored tags that upstream no longer has.
type Deleted string

// The policies for deleted tags.
const (
	DeletedServe  Deleted = remotes.DeletedServe
	DeletedWarn   Deleted = remotes.DeletedWarn
	DeletedRefuse Deleted = remotes.DeletedRefuse
)

// UnmarshalText accepts the three policies and returns
// errdefs.ErrInvalidArgument for anything else.
func (d *Deleted) UnmarshalText(text []byte) error {
	return choose(d, text, DeletedServe, DeletedWarn, DeletedRefuse)
}

// Service is one of containerd's proxy plugins.
type Service string

// The proxy plugins.
const (
	ServiceContent Service = "content"
	ServiceDiff    Service = "diff"
)

// UnmarshalText accepts the two proxy plugins and returns
// errdefs.ErrInvalidArgument for anything else.
func (s *Service) UnmarshalText(text []byte) error {
	return choose(s, text, ServiceContent, ServiceDiff)
}

// VerifyOnRead says when a blob is read before it is served.
type VerifyOnRead string

// The choices of VerifyOnRead.
const (
	VerifyNever VerifyOnRead = "never"
	VerifyBoot  VerifyOnRead = "boot"
)

// UnmarshalText accepts the two choices and returns
// errdefs.ErrInvalidArgument for anything else.
func (v *VerifyOnRead) UnmarshalText(text []byte) error {
	return choose(v, text, VerifyNever, VerifyBoot)
}

// Mode says when upstream is asked.
type Mode string

// The modes.
const (
	ModeCacheFirst    = Mode(remotes.ModeCacheFirst)
	ModeUpstreamFirst = Mode(remotes.ModeUpstreamFirst)
	ModeOffline       = Mode(remotes.ModeOffline)
)

// UnmarshalText accepts the three modes and returns
// errdefs.ErrInvalidArgument for anything else.
func (m *Mode) UnmarshalText(text []byte) error {
	return choose(m, text, ModeCacheFirst, ModeUpstreamFirst, ModeOffline)
}

// Privacy says who is served.
type Privacy string

// The choices of Privacy.
const (
	PrivateNo     = Privacy(remotes.PrivateNo)
	PrivateVerify = Privacy(remotes.PrivateVerify)
)

// UnmarshalText accepts the two choices and returns
// errdefs.ErrInvalidArgument for anything else.
func (p *Privacy) UnmarshalText(text []byte) error {
	return choose(p, text, PrivateNo, PrivateVerify)
}

// Mutability is ECR's ImageTagMutability.
type Mutability string

// The values of Mutability.
const (
	Mutable                Mutability = remotes.Mutable
	Immutable              Mutability = remotes.Immutable
	MutableWithExclusion   Mutability = remotes.MutableWithExclusion
	ImmutableWithExclusion Mutability = remotes.ImmutableWithExclusion
)

// UnmarshalText accepts ECR's four values and returns
// errdefs.ErrInvalidArgument for anything else.
func (m *Mutability) UnmarshalText(text []byte) error {
	return choose(m, text, Mutable, Immutable, MutableWithExclusion, ImmutableWithExclusion)
}

// choose sets dst to text if that is one of the choices.
func choose[T ~string](dst *T, text []byte, choices ...T) error {
	if !slices.Contains(choices, T(text)) {
		names := make([]string, len(choices))
		for i, c := range choices {
			names[i] = string(c)
		}
		return invalid("%q: want %s or %s", text, strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
	}
	*dst = T(text)
	return nil
}
