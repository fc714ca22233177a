package parts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

const htpasswdAuth = `auth:
  htpasswd: {realm: "registry", path: %q}
`

// StartPrivateRegistry runs a registry whose files live under dir, and which
// asks everybody for one of these names and passwords, also to push.
func StartPrivateRegistry(ctx context.Context, bin Bin, dir string, users map[string]string) (*Registry, error) {
	var lines strings.Builder
	for user, password := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			return nil, fmt.Errorf("htpasswd of %s: %w", user, err)
		}
		fmt.Fprintf(&lines, "%s:%s\n", user, hash)
	}
	path := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		return nil, fmt.Errorf("htpasswd: %w", err)
	}
	return startRegistry(ctx, bin, dir, fmt.Sprintf(htpasswdAuth, path))
}
