package config

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

const examplePath = "../../../config.toml.example"

const exampleHead = `# Configuration of larder, by default read from /etc/larder/config.toml.
#
# Every key is here with its default: larder behaves the same without this
# file. Lines that begin with # and no space are examples of lists that are
# empty by default. An unknown key is an error; "larder config check FILE"
# finds it.
`

var update = flag.Bool("update", false, "write config.toml.example anew")

func TestExample(t *testing.T) {
	t.Parallel()
	want := example(t)
	if *update {
		if err := os.WriteFile(examplePath, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("config.toml.example is not what the structs say, run go generate ./cmd/larder/config; want:\n%s", want)
	}

	loaded, err := Load(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	if def := Default(); !reflect.DeepEqual(*loaded, def) {
		t.Errorf("the example loads as\n%+v\nwant the defaults\n%+v", *loaded, def)
	}
}

// The examples of lists must be valid too once the # before them is gone.
func TestExampleUncommented(t *testing.T) {
	t.Parallel()
	lines := strings.Split(string(example(t)), "\n")
	for i, line := range lines {
		if rest, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(rest, " ") {
			lines[i] = rest
		}
	}
	got, err := parse("example", []byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if want := sample(); !reflect.DeepEqual(*got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", *got, want)
	}
}

// sample is the defaults with one entry in each list that is empty by default.
func sample() Config {
	c := Default()
	c.Freshness.Tags = []Tag{{Match: "*:latest", Window: Duration(time.Hour)}}
	c.Upstream.Hosts = []UpstreamHost{{
		Host: "registry.corp:5000", CAFile: "/etc/larder/corp-ca.pem",
		ClientCertFile: "/etc/larder/client.pem", ClientKeyFile: "/etc/larder/client.key",
		Realms: []Host{"auth.corp"}, MaxConnections: 8, MaxSpeed: 20 << 20, Parallel: 4,
	}}
	c.Routes = []Route{{Registry: "docker.io", Upstreams: []Endpoint{"http://127.0.0.1:5000", "registry-1.docker.io"}}}
	week := Duration(7 * 24 * time.Hour)
	c.Rules = []Rule{{
		ECRRepositoryPrefix:      "docker-hub",
		UpstreamRegistryURL:      "registry-1.docker.io",
		UpstreamRegistry:         "docker-hub",
		UpstreamRepositoryPrefix: "ROOT",
		CredentialARN:            "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/docker-hub-a1b2c3",
		Settings:                 everySetting(),
	}, {
		ECRRepositoryPrefix:      "harbor",
		UpstreamRegistryURL:      "harbor.internal",
		UpstreamRepositoryPrefix: "ROOT",
		CredentialFile:           "/etc/larder/harbor.json",
		Settings:                 Settings{LifecyclePolicyFile: "/etc/larder/lifecycle.json"},
	}, {
		ECRRepositoryPrefix:      "platform",
		UpstreamRegistryURL:      "210987654321.dkr.ecr.eu-central-1.amazonaws.com",
		UpstreamRepositoryPrefix: "platform",
		CustomRoleARN:            "arn:aws:iam::123456789012:role/larder",
		RegistryID:               "123456789012",
	}}
	c.Pins = []Pin{{Name: "registry.k8s.io/pause:3.10", Reason: "sandbox image"}, {Name: "docker.io/library/*-lts"}}
	c.Templates = []Template{
		{Prefix: "docker-hub/library", Settings: Settings{ImageTagMutability: Immutable}},
		{Prefix: "ROOT", Settings: Settings{Window: &week}},
	}
	return c
}

// everySetting is settings with no gaps.
func everySetting() Settings {
	hour := Duration(time.Hour)
	return Settings{
		Mode:                               ModeCacheFirst,
		Private:                            PrivateNo,
		Window:                             &hour,
		Deleted:                            DeletedServe,
		ImageTagMutability:                 ImmutableWithExclusion,
		ImageTagMutabilityExclusionFilters: []string{"latest", "*-dev"},
		Allow:                              []Glob{"library/*", "docker.io/grafana/*"},
		Deny:                               []Glob{"*/secret"},
		LifecyclePolicy: `{"rules": [{"rulePriority": 1, "description": "not pulled for a month", "selection": {"tagStatus": "any", ` +
			`"countType": "sinceImagePulled", "countUnit": "days", "countNumber": 30}, "action": {"type": "expire"}}]}`,
	}
}

// TestExampleHasEveryKey: no key of the lists is left out of the example.
func TestExampleHasEveryKey(t *testing.T) {
	t.Parallel()
	text := string(example(t))
	for _, typ := range []reflect.Type{reflect.TypeFor[Route](), reflect.TypeFor[Rule](), reflect.TypeFor[Template](), reflect.TypeFor[Pin](), reflect.TypeFor[Tag]()} {
		for _, key := range keys(typ) {
			if !strings.Contains(text, "\n#"+key+" = ") {
				t.Errorf("%s: the example has no line for %s", typ.Name(), key)
			}
		}
	}
}

// example renders the sample, puts each field's comment above its key, and
// comments the lists out.
func example(t *testing.T) []byte {
	t.Helper()
	docs := fieldDocs(t)
	c := sample()
	text, err := c.TOML()
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.NewBufferString(exampleHead + "\n")
	table := scope{typ: reflect.TypeFor[Config]()}
	list := ""
	told := map[string]bool{} // comments on keys of lists; once is enough
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		key, _, _ := strings.Cut(line, " = ")
		owner := table
		switch {
		case line == "":
			continue
		case strings.HasPrefix(line, "["):
			key = strings.Trim(line, "[]")
			owner, table = walk(t, key)
			if list = ""; strings.HasPrefix(line, "[[") {
				list = "#"
			}
			key = key[strings.LastIndex(key, ".")+1:]
			out.WriteString("\n")
		}
		doc := docOf(docs, owner.typ, key)
		if doc == "" {
			t.Errorf("%s: the field has no comment", line)
		}
		if told[doc] && list != "" {
			doc = ""
		}
		told[doc] = true
		for text := range strings.Lines(doc) {
			out.WriteString("# " + strings.TrimSpace(text) + "\n")
		}
		out.WriteString(list + line + "\n")
	}
	return out.Bytes()
}

// docOf returns the comment of a key, which may be that of an embedded struct.
func docOf(docs map[string]string, table reflect.Type, key string) string {
	if doc := docs[table.Name()+"."+key]; doc != "" {
		return doc
	}
	for f := range table.Fields() {
		if f.Anonymous && docs[f.Type.Name()+"."+key] != "" {
			return docs[f.Type.Name()+"."+key]
		}
	}
	return ""
}

// walk returns the table that a header names, and the one that holds it.
func walk(t *testing.T, path string) (holder, table scope) {
	t.Helper()
	table.typ = reflect.TypeFor[Config]()
	for name := range strings.SplitSeq(path, ".") {
		typ, ok := field(table.typ, name)
		if !ok {
			t.Fatalf("%s: no key %s", path, name)
		}
		if typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		holder, table = table, scope{typ: typ, path: table.child(name)}
	}
	return holder, table
}

// fieldDocs returns the comments of config.go's fields, by Type.key.
func fieldDocs(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			if f.Tag == nil {
				continue // embedded: its type has the comments
			}
			tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
			key := keyOf(reflect.StructField{Tag: tag})
			docs[spec.Name.Name+"."+key] = f.Doc.Text()
		}
		return false
	})
	return docs
}
