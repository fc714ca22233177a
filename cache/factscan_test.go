package cache

import (
	"encoding/json"
	"testing"
	"time"
)

// FuzzScanFacts compares the scan with the decoder, for all that larder writes.
func FuzzScanFacts(f *testing.F) {
	f.Add(int64(0), "", "", int64(0), int64(0), "", "", "")
	f.Add(int64(5), "application/vnd.oci.image.manifest.v1+json", "https://a.test", int64(1_700_000_000), int64(5), "", "", "docker.io/library/app")
	f.Add(int64(-5), `"size":7,`, `\"used\":"`, int64(-62135596800), int64(1), "size", `"used":"x"`, `"size":7`)
	f.Add(int64(1), "ü", "\x00\xff<>&", int64(1), int64(999_999_999), "containerd.io/x", "1", `","used":"`)
	f.Fuzz(func(t *testing.T, size int64, mediaType, source string, sec, nsec int64, label, value, holder string) {
		facts := Facts{Size: size, MediaType: mediaType, Source: source, Used: time.Unix(sec%(1<<37), nsec%1e9).UTC()}
		if sec == 0 {
			facts.Used = time.Time{}
		}
		if label != "" {
			facts.Labels = map[string]string{label: value}
		}
		record, err := json.Marshal(blobRecord{facts, holder})
		if err != nil {
			t.Skip(err)
		}
		got, ok := scanFacts(record, interner())
		want, _ := decoded[graphFacts](record)
		if !ok || got.Size != want.Size || got.MediaType != want.MediaType || got.Source != want.Source || !got.Used.Equal(want.Used) {
			t.Errorf("%s\nis scanned as %+v, %t\nand decoded as %+v", record, got, ok, want)
		}
	})
}

// TestScanFactsDamaged: what is no record is none.
func TestScanFactsDamaged(t *testing.T) {
	t.Parallel()
	for _, record := range []string{"", "x", "{", `{"size":1`, "\x00\x00\x00"} {
		if f, ok := scanFacts([]byte(record), interner()); ok {
			t.Errorf("%q is %+v", record, f)
		}
	}
}
