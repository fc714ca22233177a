package containerdconf

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
)

// DefaultProgram is containerd as the shell finds it.
const DefaultProgram = "containerd"

// programTime is how long containerd has to print something.
const programTime = 30 * time.Second

// Version is a release of containerd.
type Version struct {
	Major, Minor int
	Text         string
}

// The releases that differ in what concerns larder.
const (
	oldest1x = 7 // 1.7, the oldest that is tested
	merges2x = 4 // 2.4 puts the tables of a drop-in together with those of other files; before, it replaces them
)

// Merges reports whether a drop-in adds to a plugin's table. Otherwise it takes the place of the whole table.
func (v Version) Merges() bool { return v.Major > 2 || v.Major == 2 && v.Minor >= merges2x }

// configVersion is the version to write configuration in. Every containerd from 2.0 on takes 3; 4 is for the newest alone.
func (v Version) configVersion() int {
	if v.Major < 2 {
		return 2
	}
	return 3
}

// check refuses what is too old to do it, or cannot be judged.
func (v Version) check() error {
	if v.Major < 1 || v.Major == 1 && v.Minor < oldest1x {
		return fmt.Errorf("containerd %s: this mode needs 1.%d or later; larder setup containerd --mode mirror works with it: %w",
			v.Text, oldest1x, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// program is containerd's executable, which alone knows what its configuration files come to.
type program struct{ path string }

func (p program) run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s is not there, or not in PATH, and only containerd itself can say what its configuration comes to; name it with --containerd-program: %w",
			p.path, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %s: %w: see what it says by itself, or name another with --containerd-program: %w",
			p.path, strings.Join(args, " "), cmp.Or(lastLine(stderr.String()), "it says nothing"), err, errdefs.ErrFailedPrecondition)
	}
	return stdout.String(), nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// versionPattern finds the release in what `containerd --version` prints: program, module, version, revision.
const versionPattern = `\sv?(\d+)\.(\d+)\S*`

func (p program) version(ctx context.Context) (Version, error) {
	out, err := p.run(ctx, "--version")
	if err != nil {
		return Version{}, err
	}
	m := regexp.MustCompile(versionPattern).FindStringSubmatch(out)
	if m == nil {
		return Version{}, fmt.Errorf("%s --version: got %q, in which is no version: %w", p.path, strings.TrimSpace(out), errdefs.ErrFailedPrecondition)
	}
	v := Version{Text: strings.TrimSpace(m[0])}
	v.Major, _ = strconv.Atoi(m[1]) // digits
	v.Minor, _ = strconv.Atoi(m[2])
	return v, nil
}

// dump asks containerd what config comes to with all that it imports.
func (p program) dump(ctx context.Context, config string) (effective, error) {
	out, err := p.run(ctx, "--config", config, "config", "dump")
	if err != nil {
		return nil, fmt.Errorf("containerd does not take its configuration: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	e := effective{}
	if err := toml.Unmarshal([]byte(out), &e); err != nil {
		return nil, fmt.Errorf("%s config dump: %w: %w", p.path, err, errdefs.ErrFailedPrecondition)
	}
	return e, nil
}
