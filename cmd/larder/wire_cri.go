package main

import (
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/plugin/cri"
	"github.com/larder-project/larder/remotes"
)

// usersOf is whom removals ask which images are in use; nil, if nobody.
func usersOf(cfg config.Space) remotes.Users {
	if cfg.CRI == "" {
		return nil
	}
	return cri.Users{Client: cri.New(string(cfg.CRI))}
}
