package config

import (
	"encoding"
	"fmt"
	"iter"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// keys returns the names of a table's keys, in the order of the struct.
func keys(table reflect.Type) []string {
	var names []string
	for f := range fieldsOf(table) {
		names = append(names, keyOf(f))
	}
	return names
}

// fieldsOf yields the fields of a table that are keys, those of embedded structs
// included.
func fieldsOf(table reflect.Type) iter.Seq[reflect.StructField] {
	return func(yield func(reflect.StructField) bool) {
		for _, f := range reflect.VisibleFields(table) {
			if !f.Anonymous && !yield(f) {
				return
			}
		}
	}
}

func keyOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	return name
}

// field returns the type of a table's key, false if it has none of that name.
func field(table reflect.Type, name string) (reflect.Type, bool) {
	if table.Kind() != reflect.Struct {
		return nil, false
	}
	for f := range fieldsOf(table) {
		if keyOf(f) == name && f.Type.Kind() == reflect.Pointer {
			return f.Type.Elem(), true // one that can be left out
		}
		if keyOf(f) == name {
			return f.Type, true
		}
	}
	return nil, false
}

// isText reports whether values of a type are written as text.
func isText(t reflect.Type) bool {
	return t.Kind() == reflect.String || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// fits reports whether a TOML value of a kind can be of a type.
func fits(t reflect.Type, kind unstable.Kind) bool {
	if isText(t) {
		return kind == unstable.String
	}
	switch t.Kind() {
	case reflect.Int:
		return kind == unstable.Integer
	case reflect.Bool:
		return kind == unstable.Bool
	case reflect.Slice:
		return kind == unstable.Array
	case reflect.Struct:
		return kind == unstable.InlineTable
	}
	return false
}

// wanted says how values of a type are written.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return `a duration in quotes such as "30s"`
	case t == reflect.TypeFor[Size]():
		return `a size in quotes such as "64KiB"`
	case t == reflect.TypeFor[Percent]():
		return `a share in quotes such as "70%"`
	case isText(t):
		return "text in quotes"
	}
	switch t.Kind() {
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		if isText(t.Elem()) {
			return `a list such as ["a", "b"]`
		}
		return "a list of tables"
	}
	return "a table"
}

// unknown says that a table has no such key, and what may have been meant.
func unknown(table scope, name string) error {
	if table.typ.Kind() != reflect.Struct {
		return invalid("%s is not a table, want %s", table.path, wanted(table.typ))
	}
	if near := nearest(name, keys(table.typ)); near != "" {
		return invalid("unknown key, did you mean %s?", near)
	}
	if homes := tablesWith(reflect.TypeFor[Config](), "", name); len(homes) > 0 {
		return invalid("unknown key, %s belongs %s", name, strings.Join(homes, " or "))
	}
	return invalid("unknown key")
}

// maxKeyLength bounds the keys that are compared with those of the schema; no
// key of the schema is near it.
const maxKeyLength = 64

// nearest returns the name that is a slip of the keyboard away, "" if none is.
func nearest(name string, names []string) string {
	best, least := "", 1+max(1, min(len(name)/3, 3))
	if len(name) > maxKeyLength {
		return ""
	}
	for _, n := range names {
		if d := distance(strings.ToLower(name), n); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete or replace that makes b
// of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// tablesWith says where keys of a name belong.
func tablesWith(table reflect.Type, path, name string) []string {
	var homes []string
	if _, ok := field(table, name); ok {
		homes = append(homes, home(path))
	}
	for f := range fieldsOf(table) {
		typ, format := f.Type, "%s"
		if typ.Kind() == reflect.Slice {
			typ, format = typ.Elem(), "[%s]"
		}
		if typ.Kind() == reflect.Struct && !isText(typ) {
			below := scope{path: strings.Trim(path, "[]")}.child(keyOf(f))
			homes = append(homes, tablesWith(typ, fmt.Sprintf(format, below), name)...)
		}
	}
	return homes
}

func home(path string) string {
	if path == "" {
		return "at the top, above every [table]"
	}
	return "in [" + path + "]"
}
