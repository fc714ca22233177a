package cache

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// ReadFormat returns the version of the store in root, without opening it: a
// daemon may have it open. The error wraps fs.ErrNotExist if nothing says one,
// as in a folder that is no store yet.
func ReadFormat(root string) (int, error) {
	path := filepath.Join(root, "larder.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("store: read format: %w", err)
	}
	version, err := decodeFormat(text)
	if err != nil {
		return 0, fmt.Errorf("store: %s: %w", path, err)
	}
	return version, nil
}

func decodeFormat(text []byte) (version int, err error) {
	var f format
	if err := json.Unmarshal(text, &f); err != nil {
		return 0, err
	}
	if f.Format < 1 {
		return 0, fmt.Errorf("format is %d, want 1 or more", f.Format)
	}
	return f.Format, nil
}
