package descriptors

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkDecode decodes the layers of a manifest.
func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{10, 100} {
		b.Run(fmt.Sprintf("Layers=%d", n), func(b *testing.B) {
			const layer = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1000},`
			text := []byte(`{"layers":[` + strings.TrimSuffix(strings.Repeat(layer, n), ",") + `]}`)
			b.ReportAllocs()
			for b.Loop() {
				var doc struct{ Layers List }
				if err := json.Unmarshal(text, &doc); err != nil || len(doc.Layers) != n {
					b.Fatal(len(doc.Layers), err)
				}
			}
		})
	}
}
