package config

import (
	"bytes"
	"encoding/json"

	"github.com/pelletier/go-toml/v2"
)

// TOML returns the configuration as a file that Load reads back to an equal
// one, with every key.
func (c *Config) TOML() ([]byte, error) {
	data, err := toml.Marshal(c)
	if err != nil {
		return nil, err
	}
	lines := bytes.Split(data, []byte("\n"))
	for i, line := range lines {
		// The encoder writes 'text' where it can. A line without double quotes
		// and backslashes has no other apostrophes than those, so they can
		// become the double quotes of the documentation.
		if !bytes.ContainsAny(line, `"\`) {
			lines[i] = bytes.ReplaceAll(line, []byte(`'`), []byte(`"`))
		}
	}
	return bytes.Join(lines, []byte("\n")), nil
}

// JSON returns the configuration as one indented JSON object with the names
// and the texts of the TOML form.
func (c *Config) JSON() ([]byte, error) {
	data, err := toml.Marshal(c)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(tree, "", "  ")
	return append(out, '\n'), err
}
