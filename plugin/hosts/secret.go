package hosts

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

const (
	secretBytes    = 32   // of randomness in a secret that larder makes
	maxSecretBytes = 1024 // more than any header value should be
)

// ReadSecret returns the node secret kept in the file path, without surrounding white space. The error wraps
// errdefs.ErrNotFound when there is no such file, and errdefs.ErrInvalidArgument when the content cannot be sent as
// a header value. No error quotes the content.
func ReadSecret(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("secret file %s: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return "", ownfile.Explain(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return "", ownfile.Explain(path, err)
	}
	secret := strings.TrimSpace(string(data))
	if err := checkSecret(secret); err != nil {
		return "", fmt.Errorf("secret file %s: %w", path, err)
	}
	return secret, nil
}

// EnsureSecret returns the node secret kept in the file path, and makes the file (32 random bytes in hex, mode
// 0600, with its folder) when there is none; created tells which. Of several callers at once one creates it and
// all return the same secret. After a crash the file is there whole or not at all.
func EnsureSecret(path string) (secret string, created bool, err error) {
	secret, err = ReadSecret(path)
	if !errdefs.IsNotFound(err) {
		return secret, false, err
	}
	raw := make([]byte, secretBytes)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the process instead
	secret = hex.EncodeToString(raw)
	switch err := publishSecret(path, secret); {
	case errors.Is(err, fs.ErrExist):
		secret, err = ReadSecret(path)
		return secret, false, err
	case err != nil:
		return "", false, ownfile.Explain(path, err)
	}
	return secret, true, nil
}

// publishSecret makes path with content secret, or fails with fs.ErrExist. A link, other than a rename, never
// replaces the file of another process that came first.
func publishSecret(path, secret string) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".larder-secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if err := writeSync(tmp, []byte(secret+"\n")); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return ownfile.SyncDir(d)
}

// checkSecret accepts what can stand in a header and in TOML without any quoting.
func checkSecret(secret string) error {
	switch {
	case secret == "":
		return fmt.Errorf("secret is empty: %w", errdefs.ErrInvalidArgument)
	case len(secret) > maxSecretBytes:
		return fmt.Errorf("secret is longer than %d bytes: %w", maxSecretBytes, errdefs.ErrInvalidArgument)
	}
	for i := range len(secret) {
		if c := secret[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return fmt.Errorf("secret: byte %d is not a visible ASCII character or is a quote or a backslash: %w", i, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}
