package containerdconf

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
)

// The end of the line that larder puts into containerd's main file. What stood there before follows it.
const (
	lineMark = " # larder setup containerd; before: "
	nothing  = "nothing"
)

// mainFile is containerd's main configuration file, as it is and as a drop-in needs it.
type mainFile struct {
	path   string
	there  bool
	text   string
	dropIn string // where the drop-in is, or has to be
	// wanted is the text with which containerd reads the drop-in; text, if it does so already. added is what is new in it.
	wanted, added string
}

// readMain finds out which folder containerd reads drop-ins from. Where it reads none, one line has to say so, and all
// else stays as it is, byte for byte.
func readMain(path string, v Version) (m mainFile, err error) {
	m.path = path
	if m.text, m.there, err = read(path); err != nil {
		return m, err
	}
	folder := filepath.Join(filepath.Dir(path), folderName)
	m.dropIn = filepath.Join(folder, dropInName)
	line := fmt.Sprintf("imports = [%q]", filepath.Join(folder, "*.toml"))
	if !m.there {
		m.added = fileMark.On(fmt.Sprintf(intro, "containerd's configuration, of which there was none.") + fmt.Sprintf("version = %d\n%s\n", v.configVersion(), line))
		m.wanted = m.added
		return m, nil
	}
	var doc map[string]any
	if err := toml.Unmarshal([]byte(m.text), &doc); err != nil {
		return m, fmt.Errorf("%s: containerd's configuration is broken, correct the file: %w: %w", path, err, errdefs.ErrFailedPrecondition)
	}
	m.wanted = m.text
	imports := texts(doc["imports"])
	if found := reached(path, imports); found != "" {
		m.dropIn = found
		return m, nil
	}
	if len(imports) > 0 {
		return m, fmt.Errorf("%s imports no folder of *.toml files, so larder's file would not be read; add %q to its imports: %w",
			path, filepath.Join(folder, "*.toml"), errdefs.ErrFailedPrecondition)
	}
	if fi, err := os.Lstat(path); err == nil && !fi.Mode().IsRegular() {
		return m, fmt.Errorf("%s is no plain file, so another program is its owner; have that add: %s: %w", path, line, errdefs.ErrFailedPrecondition)
	}
	m.wanted, m.added = withLine(m.text, line), line+"\n"
	return m, m.checkEdit(doc)
}

// checkEdit makes sure that the edit changes imports alone: the file may have text that looks like a line of it.
func (m mainFile) checkEdit(before map[string]any) error {
	var after map[string]any
	err := toml.Unmarshal([]byte(m.wanted), &after)
	if err == nil {
		if reached(m.path, texts(after["imports"])) == "" {
			err = fmt.Errorf("imports was not taken")
		}
		delete(before, "imports")
		delete(after, "imports")
	}
	if err != nil || !reflect.DeepEqual(before, after) {
		return fmt.Errorf("%s: larder cannot add the line by itself; add imports = [%q]: %w", m.path,
			filepath.Join(filepath.Dir(m.dropIn), "*.toml"), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// reached is the path of a drop-in that the imports of the file parent lead to, "" if there is none.
func reached(parent string, imports []string) string {
	var all []string
	for _, pattern := range imports {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(parent), pattern)
		}
		dir, file := filepath.Split(filepath.Clean(pattern))
		if ok, err := filepath.Match(file, dropInName); ok && err == nil && !strings.ContainsAny(dir, "*?[") {
			all = append(all, filepath.Join(dir, dropInName))
		}
	}
	usual := filepath.Join(filepath.Dir(parent), folderName, dropInName)
	switch {
	case len(all) == 0:
		return ""
	case slices.Contains(all, usual):
		return usual
	}
	return all[0]
}

// emptyImports is the line of a main file that imports nothing, as `containerd config default` of older releases prints;
// firstTable ends the keys of the whole.
const (
	emptyImports = `(?m)^imports[ \t]*=[ \t]*\[[ \t]*\][ \t]*(#[^\n]*)?$`
	firstTable   = `(?m)^[ \t]*\[`
)

// withLine puts line in place of an empty imports, or before all else.
func withLine(text, line string) string {
	head := text
	if at := regexp.MustCompile(firstTable).FindStringIndex(text); at != nil {
		head = text[:at[0]]
	}
	if at := regexp.MustCompile(emptyImports).FindStringIndex(head); at != nil {
		return text[:at[0]] + line + lineMark + text[at[0]:at[1]] + text[at[1]:]
	}
	return line + lineMark + nothing + "\n" + text
}

// withoutLine puts back what stood in place of larder's line. ok is false if there is none.
func withoutLine(text string) (_ string, ok bool) {
	mark := strings.Index(text, lineMark)
	if mark < 0 {
		return text, false
	}
	begin := strings.LastIndexByte(text[:mark], '\n') + 1
	end := len(text)
	if n := strings.IndexByte(text[mark:], '\n'); n >= 0 {
		end = mark + n
	}
	before := text[mark+len(lineMark) : end]
	if before == nothing {
		return text[:begin] + strings.TrimPrefix(text[end:], "\n"), true
	}
	return text[:begin] + before + text[end:], true
}
