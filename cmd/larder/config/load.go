package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"

	"github.com/larder-project/larder/remotes"
)

// DefaultPath is where Load looks when it is given no path.
const DefaultPath = "/etc/larder/config.toml"

// maxFileSize bounds a configuration file in bytes. A real one has a few
// kilobytes; the bound is for a path that names something else.
const maxFileSize = 1 << 20

// Load reads the configuration file at path. With an empty path it reads
// [DefaultPath], and returns the defaults if there is no such file; a path
// that was given must exist. All problems are reported, each as an [*Error],
// joined by errors.Join.
func Load(path string) (*Config, error) {
	file := cmp.Or(path, DefaultPath)
	data, err := read(file)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		c := Default()
		return &c, nil
	}
	if err != nil {
		return nil, err
	}
	return parse(file, data)
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, &Error{File: file, Err: reason(err)}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, &Error{File: file, Err: reason(err)}
	}
	if len(data) > maxFileSize {
		return nil, &Error{File: file, Err: invalid("larger than %s, this is no configuration file", Size(maxFileSize))}
	}
	return data, nil
}

// reason takes the path out of an error of the file system: Error has it.
func reason(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// parse returns the defaults as changed by a file's content. Keys whose value
// is bad are taken out, so that the rest can be decoded and validated and one
// run reports everything.
func parse(file string, data []byte) (*Config, error) {
	doc := inspect(data)
	c := Default()
	dec := toml.NewDecoder(bytes.NewReader(doc.sound)).DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		doc.problems = append(doc.problems, decodeProblems(err)...)
	} else {
		c.complete()
		for _, f := range append(c.check(), doc.missing(&c)...) {
			doc.locate(f)
		}
	}
	if len(doc.problems) == 0 {
		return &c, nil
	}
	for _, p := range doc.problems {
		p.File = file
	}
	slices.SortStableFunc(doc.problems, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return nil, join(doc.problems)
}

// complete fills in the defaults of the tables that are lists.
func (c *Config) complete() {
	for i := range c.Rules {
		r := &c.Rules[i]
		r.UpstreamRepositoryPrefix = cmp.Or(r.UpstreamRepositoryPrefix, remotes.Root)
	}
}

// missing finds keys that must be in the file because their zero value means
// something: a tag window of 0s would ask upstream for every pull.
func (d *document) missing(c *Config) findings {
	var fs findings
	for i := range c.Freshness.Tags {
		key := fmt.Sprintf("freshness.tags[%d].window", i)
		if _, ok := d.places[key]; !ok {
			fs.add(invalid("must be set"), key)
		}
	}
	return fs
}

// decodeProblems translates what only the decoder sees: syntax, and keys or
// tables given twice.
func decodeProblems(err error) []*Error {
	if s, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var all []*Error
		for i := range s.Errors {
			all = append(all, decodeProblems(&s.Errors[i])...)
		}
		return all
	}
	text := strings.TrimPrefix(err.Error(), "toml: ")
	p := &Error{Err: fmt.Errorf("%s: %w", text, errdefs.ErrInvalidArgument)}
	if d, ok := errors.AsType[*toml.DecodeError](err); ok {
		p.Line, p.Column = d.Position()
		p.Key = strings.Join(d.Key(), ".")
	}
	return []*Error{p}
}
