package remotes

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
)

const (
	// maxPinName bounds a pin's name: a repository's path has at most 255
	// characters, a tag or digest at most about as many.
	maxPinName = 1024
	// maxOwner and maxReason bound what is only shown.
	maxOwner  = 63
	maxReason = 1000
)

// CheckPin returns errdefs.ErrInvalidArgument for text that can name nothing to
// pin: see Names.PinName.
func CheckPin(text string) error {
	_, err := pinName(text, ParseReference)
	return err
}

// PinName returns the name under which a person's text is pinned. That is a
// reference in any of its forms, as it is mapped when a client asks for it; a
// digest alone; or a pattern, in which "*" stands for any characters. Patterns
// are for references as larder writes them (host/repository:tag, or @digest) and
// are not mapped.
func (n Names) PinName(text string) (string, error) { return pinName(text, n.ParseReference) }

func pinName(text string, parse func(string) (Reference, error)) (string, error) {
	switch {
	case text == "":
		return "", fmt.Errorf("pin is empty, want a reference, a digest or a pattern: %w", errdefs.ErrInvalidArgument)
	case len(text) > maxPinName:
		return "", fmt.Errorf("pin %.80q… has %d characters, at most %d are possible: %w", text, len(text), maxPinName, errdefs.ErrInvalidArgument)
	case strings.Contains(text, "*"):
		if i := strings.IndexFunc(text, unfitForPattern); i >= 0 {
			return "", fmt.Errorf("pattern %q: %q cannot stand in a pattern, only * is special: %w", text, []rune(text[i:])[0], errdefs.ErrInvalidArgument)
		}
		return text, nil
	}
	// An image of the name "sha256" would be read into a digest that was cut.
	if algorithm, _, ok := strings.Cut(text, ":"); ok && digest.Algorithm(algorithm).Available() {
		if err := digest.Digest(text).Validate(); err != nil {
			return "", fmt.Errorf("digest %.200q: %w: %w", text, err, errdefs.ErrInvalidArgument)
		}
		return text, nil
	}
	ref, err := parse(text)
	if err != nil {
		return "", err
	}
	return ref.name(), nil
}

// unfitForPattern reports characters that no reference has. They are refused so
// that ? or [a-z] does not look as if it worked.
func unfitForPattern(r rune) bool { return !isWordRune(r) && !strings.ContainsRune("*/:@", r) }

// isWordRune reports characters of paths, tags and owners.
func isWordRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
}

// checkPinWords checks what a person says of a pin besides its name.
func checkPinWords(p cache.Pin) error {
	if p.Owner == cache.PinOwnerConfig || p.Owner == cache.PinOwnerFile {
		return fmt.Errorf("owner %q stands for pins of the configuration or of the pin file, take another: %w", p.Owner, errdefs.ErrInvalidArgument)
	}
	if len(p.Owner) > maxOwner || strings.ContainsFunc(p.Owner, func(r rune) bool { return !isWordRune(r) }) {
		return fmt.Errorf("owner %.80q: want at most %d letters, digits, dots, - and _: %w", p.Owner, maxOwner, errdefs.ErrInvalidArgument)
	}
	return CheckPinReason(p.Reason)
}

// CheckPinReason returns errdefs.ErrInvalidArgument for a reason that is not one
// line of at most 1000 bytes.
func CheckPinReason(reason string) error {
	if len(reason) > maxReason || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("reason %.80q: want one line of at most %d bytes: %w", reason, maxReason, errdefs.ErrInvalidArgument)
	}
	return nil
}

// PinsEverything reports whether a pin is a pattern that holds for all that is
// stored and will be: then nothing can be removed.
func PinsEverything(name string) bool {
	p, err := ParsePattern(name)
	// Two references that have nothing in common.
	return err == nil && strings.Contains(name, "*") && p.Match("a.example/b:c") && p.Match("x:1/y/z@sha256:0")
}
