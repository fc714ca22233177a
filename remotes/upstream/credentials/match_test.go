package credentials

import (
	"regexp"
	"strings"
	"testing"
)

func TestMatchImages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, image string
		want           bool
	}{
		{"quay.io", "quay.io/team/app", true},
		{"quay.io", "quay.io:5000/team/app", false},
		{"quay.io:5000", "quay.io:5000/team/app", true},
		{"quay.io:5000", "quay.io/team/app", false},
		{"quay.io:5000", "quay.io:5001/team/app", false},
		{"*.io", "quay.io/a", true},
		{"*.io", "a.quay.io/a", false},
		{"*.quay.io", "a.quay.io/a", true},
		{"*.quay.io", "quay.io/a", false},
		{"*.quay.io", "a.b.quay.io/a", false},
		{"*.*.quay.io", "a.b.quay.io/a", true},
		{"app*.k8s.io", "app1.k8s.io/a", true},
		{"app*.k8s.io", "app.k8s.io/a", true},
		{"app*.k8s.io", "bapp.k8s.io/a", false},
		{"k8s.*.io", "k8s.x.io/a", true},
		{"k8s.*", "k8s.io/a", true},
		{"*", "k8s.io/a", false},
		{"*", "localhost/a", true},
		{"*.*", "k8s.io/a", true},
		{"quay.io/team", "quay.io/team/app", true},
		{"quay.io/team", "quay.io/teammate/app", true}, // characters, as the kubelet
		{"quay.io/team/", "quay.io/teammate/app", false},
		{"quay.io/team", "quay.io/other/app", false},
		{"quay.io/team/app/x", "quay.io/team/app", false},
		{"quay.io/*", "quay.io/team", false}, // no globs in paths
		{"docker.io", "docker.io/library/nginx", true},
		{"index.docker.io", "docker.io/library/nginx", false},
		{"docker.io/library", "docker.io/library/nginx", true},
		{"Quay.io", "quay.io/a", false},
		{"*.dkr.ecr.*.amazonaws.com", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/a", true},
		{"*.dkr.ecr.*.amazonaws.com", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a", false},
		{"*.dkr.ecr.*.amazonaws.com.cn", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a", true},
		{"*.dkr-ecr.*.on.aws", "123456789012.dkr-ecr.us-east-1.on.aws/a", true},
		{"*.dkr.ecr-fips.*.amazonaws.com", "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com/a", true},
	} {
		p, err := parsePattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := p.match(c.image); got != c.want {
			t.Errorf("%s of %s: got %v, want %v", c.pattern, c.image, got, c.want)
		}
	}
	for _, bad := range []string{"", "/path", ":5000", "a b.io", "%zz.io", "[a.io", "a[.io"} {
		if p, err := parsePattern(bad); err == nil && p.match("a.io/x") {
			t.Errorf("%q: matches", bad)
		}
	}
}

// A match is never wider than its words say, whatever the pattern.
func FuzzMatchImages(f *testing.F) {
	for _, seed := range [][2]string{
		{"*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.x.amazonaws.com/a"}, {"quay.io:5000/team", "quay.io:5000/team/app"},
		{"app*.k8s.io", "app1.k8s.io/x"}, {"[::1]:5000", "[::1]:5000/a"}, {"a%2ab.io", "a*b.io/x"}, {"u:p@h.io", "h.io/a"},
	} {
		f.Add(seed[0], seed[1])
	}
	simple := regexp.MustCompile(`^[a-z0-9*-]+(\.[a-z0-9*-]+)*(:[0-9]+)?(/[a-z0-9/]*)?$`)
	f.Fuzz(func(t *testing.T, text, image string) {
		p, err := parsePattern(text)
		if err != nil {
			return
		}
		got := p.match(image)
		if !simple.MatchString(text) || !simple.MatchString(image) || strings.Contains(image, "*") {
			return
		}
		// For plain text, a second way to say it.
		domain, path, slash := strings.Cut(text, "/")
		expr := strings.ReplaceAll(regexp.QuoteMeta(domain), `\*`, `[^.:/]*`)
		if slash {
			expr += regexp.QuoteMeta("/" + path)
		} else {
			expr += `(/|$)`
		}
		if want := regexp.MustCompile("^" + expr).MatchString(image); got != want {
			t.Errorf("%q of %q: got %v, want %v", text, image, got, want)
		}
	})
}
