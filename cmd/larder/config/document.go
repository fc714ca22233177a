package config

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// document is what inspect learnt about a file.
type document struct {
	parser unstable.Parser
	// sound is the file with each expression that has a problem blanked out;
	// all others stand where they stood.
	sound    []byte
	problems []*Error
	// places says where each key stands, with the indexes of list tables.
	places map[string]unstable.Position
	// elems counts the tables of each list seen so far.
	elems map[string]int
	// failed holds the keys that are blanked out.
	failed map[string]bool
}

// scope is a table of the schema, or below it a key. A nil typ is a table
// that the schema does not have.
type scope struct {
	typ  reflect.Type
	path string
}

// child is the path of a key in the table, quoted where TOML asks for it.
func (s scope) child(name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !bare(r) }) {
		name = strconv.Quote(name)
	}
	if s.path == "" {
		return name
	}
	return s.path + "." + name
}

// bare reports whether a character may stand in a key without quotes.
func bare(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}

// inspect checks keys and single values of a file against the schema. The
// decoder alone would stop at the first bad value, and it does not ask string
// types to validate. Syntax is left to the decoder: inspect stops there.
func inspect(data []byte) *document {
	d := &document{
		sound:  bytes.Clone(data),
		places: map[string]unstable.Position{},
		elems:  map[string]int{},
		failed: map[string]bool{},
	}
	d.parser.Reset(data)
	root := scope{typ: reflect.TypeFor[Config]()}
	table := root
	for d.parser.NextExpression() {
		expr := d.parser.Expression()
		switch expr.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = d.header(root, expr)
		case unstable.KeyValue:
			if table.typ == nil {
				d.blank(expr.Raw)
				continue
			}
			d.expression(table, expr)
		}
	}
	return d
}

// header enters the table that a [table] or [[table]] line names.
func (d *document) header(root scope, expr *unstable.Node) scope {
	s, place, ok := d.follow(root, expr.Key())
	wantList := ok && s.typ.Kind() == reflect.Slice && s.typ.Elem().Kind() == reflect.Struct
	switch {
	case !ok:
	case wantList && expr.Kind == unstable.Table:
		ok = d.report(place, s.path, invalid("is a list, write [[%s]]", s.path))
	case !wantList && s.typ.Kind() != reflect.Struct:
		ok = d.report(place, s.path, invalid("is not a table, want %s", wanted(s.typ)))
	case !wantList && expr.Kind == unstable.ArrayTable:
		ok = d.report(place, s.path, invalid("is one table, write [%s]", s.path))
	}
	if !ok {
		d.blankLine(place.Offset)
		return scope{}
	}
	if wantList {
		n := d.elems[s.path]
		d.elems[s.path]++
		s = scope{typ: s.typ.Elem(), path: fmt.Sprintf("%s[%d]", s.path, n)}
		d.places[s.path] = place
	}
	return s
}

// expression checks a key with its value and blanks both out if they are bad.
func (d *document) expression(table scope, expr *unstable.Node) {
	before := len(d.problems)
	path := d.pair(table, expr)
	if len(d.problems) > before {
		d.blank(expr.Raw)
		d.failed[path] = true
	}
}

// pair checks one key = value and returns the key's path.
func (d *document) pair(table scope, expr *unstable.Node) string {
	s, place, ok := d.follow(table, expr.Key())
	if ok {
		d.value(s, expr.Value(), place)
	}
	return s.path
}

// follow walks a dotted key down from a table. It reports a key that the
// schema does not have, and then returns false.
func (d *document) follow(s scope, key unstable.Iterator) (scope, unstable.Position, bool) {
	var place unstable.Position
	for key.Next() {
		name := string(key.Node().Data)
		at := d.parser.Shape(key.Node().Raw).Start
		if place.Line == 0 {
			place = at
		}
		if n := d.elems[s.path]; n > 0 && s.typ.Kind() == reflect.Slice {
			s = scope{typ: s.typ.Elem(), path: fmt.Sprintf("%s[%d]", s.path, n-1)}
		}
		typ, known := field(s.typ, name)
		if !known {
			return scope{path: s.child(name)}, place, d.report(at, s.child(name), unknown(s, name))
		}
		s = scope{typ: typ, path: s.child(name)}
		if _, seen := d.places[s.path]; !seen {
			d.places[s.path] = at
		}
	}
	return s, place, true
}

// value checks a value against the type that the schema gives its key.
func (d *document) value(s scope, node *unstable.Node, place unstable.Position) {
	if node.Raw.Length > 0 {
		place = d.parser.Shape(node.Raw).Start
	}
	mismatch := func() {
		given := ""
		if raw := string(d.parser.Raw(node.Raw)); raw != "" && node.Kind != unstable.InlineTable && !mayHoldCredential(raw) {
			given = raw + ": "
		}
		d.report(place, s.path, invalid("%swant %s", given, wanted(s.typ)))
	}
	if !fits(s.typ, node.Kind) {
		mismatch()
		return
	}
	switch node.Kind {
	case unstable.String:
		if u, ok := reflect.New(s.typ).Interface().(encoding.TextUnmarshaler); ok {
			if err := u.UnmarshalText(node.Data); err != nil {
				d.report(place, s.path, err)
			}
		}
	case unstable.Integer:
		if _, err := strconv.ParseInt(string(node.Data), 0, s.typ.Bits()); err != nil {
			d.report(place, s.path, invalid("%s: is too large", node.Data))
		}
	case unstable.Array:
		i := 0
		for it := node.Children(); it.Next(); i++ {
			elem := scope{typ: s.typ.Elem(), path: fmt.Sprintf("%s[%d]", s.path, i)}
			d.value(elem, it.Node(), place)
			d.places[elem.path] = d.placeOf(it.Node(), place)
		}
	case unstable.InlineTable:
		for it := node.Children(); it.Next(); {
			d.pair(s, it.Node())
		}
	}
}

func (d *document) placeOf(node *unstable.Node, otherwise unstable.Position) unstable.Position {
	if node.Raw.Length == 0 {
		return otherwise
	}
	return d.parser.Shape(node.Raw).Start
}

// locate adds a finding of the validation, at the first of its keys that the
// file has. It drops findings about keys that are reported already: they
// would speak of a value that is not in the file.
func (d *document) locate(f finding) {
	for _, key := range f.keys {
		if d.hasFailed(key) {
			return
		}
	}
	p := &Error{Key: f.keys[0], Err: f.err}
	for _, key := range f.keys {
		if at, ok := d.place(key); ok {
			p.Line, p.Column = at.Line, at.Column
			break
		}
	}
	d.problems = append(d.problems, p)
}

func (d *document) hasFailed(key string) bool {
	for ; key != ""; key = parent(key) {
		if d.failed[key] {
			return true
		}
	}
	return false
}

// place returns where a key stands; for a key missing in a list, the place of
// its list table.
func (d *document) place(key string) (unstable.Position, bool) {
	at, ok := d.places[key]
	if up := parent(key); !ok && strings.HasSuffix(up, "]") {
		at, ok = d.places[up]
	}
	return at, ok
}

// parent returns the path of the table or list that holds a key, "" for one
// at the top.
func parent(key string) string {
	return key[:max(strings.LastIndexAny(key, ".["), 0)]
}

// report adds a problem. It returns false for the caller to return.
func (d *document) report(at unstable.Position, key string, err error) bool {
	d.problems = append(d.problems, &Error{Line: at.Line, Column: at.Column, Key: key, Err: err})
	return false
}

// blank overwrites a range with spaces; line ends stay, for the positions.
func (d *document) blank(r unstable.Range) {
	for i := r.Offset; i < r.Offset+r.Length; i++ {
		if d.sound[i] != '\n' && d.sound[i] != '\r' {
			d.sound[i] = ' '
		}
	}
}

// blankLine blanks out the line of a table header.
func (d *document) blankLine(offset int) {
	start := bytes.LastIndexByte(d.sound[:offset], '\n') + 1
	end := len(d.sound)
	if n := bytes.IndexByte(d.sound[offset:], '\n'); n >= 0 {
		end = offset + n
	}
	d.blank(unstable.Range{Offset: uint32(start), Length: uint32(end - start)})
}
