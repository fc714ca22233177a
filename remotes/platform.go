package remotes

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// platformChoice says which manifests of an index are wanted.
type platformChoice struct {
	all  bool
	want []platforms.MatchComparer
	text string
}

func newPlatformChoice(texts []string) (platformChoice, error) {
	if len(texts) == 0 {
		return platformChoice{want: []platforms.MatchComparer{platforms.Default()}, text: platforms.DefaultString()}, nil
	}
	c := platformChoice{text: strings.Join(texts, ", ")}
	for _, t := range texts {
		if t == "all" {
			return platformChoice{all: true}, nil
		}
		p, err := platforms.Parse(t)
		if err != nil {
			return platformChoice{}, fmt.Errorf("platform %q: want os/arch[/variant], or all: %v: %w", t, err, errdefs.ErrInvalidArgument) //nolint:errorlint // its kind is the same
		}
		c.want = append(c.want, platforms.Only(p))
	}
	return c, nil
}

// choose returns for each wanted platform the manifest that fits best.
// Manifests without a platform, as in an index of artifacts, are all taken;
// attestations (unknown/unknown) only with "all".
func (c platformChoice) choose(descs []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if c.all {
		return descs, nil
	}
	var chosen []ocispec.Descriptor
	var offered []string
	for _, d := range descs {
		if d.Platform == nil {
			chosen = append(chosen, d)
		} else if !isAttestation(d) {
			offered = append(offered, platforms.FormatAll(*d.Platform))
		}
	}
	for _, match := range c.want {
		best := -1
		for i, d := range descs {
			if d.Platform == nil || !match.Match(*d.Platform) {
				continue
			}
			if best < 0 || match.Less(*d.Platform, *descs[best].Platform) {
				best = i
			}
		}
		if best >= 0 {
			chosen = append(chosen, descs[best])
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no image for %s in the index, which has %s: %w", c.text, strings.Join(offered, ", "), errdefs.ErrNotFound)
	}
	return chosen, nil
}

// isAttestation reports whether a descriptor in an index is for an image's
// provenance and the like: BuildKit gives these the platform unknown/unknown.
func isAttestation(desc ocispec.Descriptor) bool {
	return desc.Platform != nil && desc.Platform.OS == "unknown"
}

// configPlatform reads the platform that an image's config names.
func (r *Registry) configPlatform(config ocispec.Descriptor) (string, error) {
	data, err := r.readManifest(config.Digest) // bounded and checked like one
	if err != nil {
		return "", err
	}
	var p ocispec.Platform
	if err := json.Unmarshal(data, &p); err != nil || p.OS == "" {
		return "", fmt.Errorf("config %s names no platform: %w", config.Digest, errdefs.ErrNotFound)
	}
	return platforms.FormatAll(p), nil
}
