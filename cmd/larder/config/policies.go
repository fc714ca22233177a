package config

import (
	"errors"
	"fmt"
	"slices"

	"github.com/larder-project/larder/cache/lifecycle"
)

// ReadPolicies returns the configuration with the content of every
// lifecycle_policy_file as lifecycle_policy. It returns all problems of the
// files.
func (c *Config) ReadPolicies() (*Config, error) {
	read := *c
	read.Rules, read.Templates = slices.Clone(c.Rules), slices.Clone(c.Templates)
	var errs []error
	for i := range read.Rules {
		errs = append(errs, read.Rules[i].Settings.readPolicy(fmt.Sprintf("rules[%d]", i)))
	}
	for i := range read.Templates {
		errs = append(errs, read.Templates[i].Settings.readPolicy(fmt.Sprintf("templates[%d]", i)))
	}
	return &read, errors.Join(errs...)
}

func (s *Settings) readPolicy(path string) error {
	if s.LifecyclePolicyFile == "" {
		return nil
	}
	file := string(s.LifecyclePolicyFile)
	path += ".lifecycle_policy_file"
	data, err := read(file)
	if e, ok := errors.AsType[*Error](err); ok {
		return fmt.Errorf("%s: %s: %w", path, file, e.Err)
	}
	_, err = lifecycle.Parse(data)
	var errs []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok && err != nil {
		for _, one := range joined.Unwrap() {
			errs = append(errs, fmt.Errorf("%s: %s: %w", path, file, one))
		}
	} else if err != nil {
		errs = append(errs, fmt.Errorf("%s: %s: %w", path, file, err))
	}
	s.LifecyclePolicy, s.LifecyclePolicyFile = string(data), ""
	return errors.Join(errs...)
}

// checkPolicy checks that a policy is said in one place.
func checkPolicy(fs *findings, path string, s Settings) {
	if s.LifecyclePolicy != "" && s.LifecyclePolicyFile != "" {
		fs.add(invalid("lifecycle_policy says it already: give one of both"), path+".lifecycle_policy_file", path+".lifecycle_policy")
	}
}
