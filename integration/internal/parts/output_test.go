package parts

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOutputIsComplete: what a program has written, Output returns, however late the
// goroutine is that follows it.
func TestOutputIsComplete(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "done")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	stdin, words, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer words.Close()
	p, err := StartWith(StartOptions{Stdin: stdin}, "/bin/sh", nil, "-c", `while read -r word; do echo "$word"; echo "$word" >&3; done 3>"$0"`, path)
	if err != nil {
		t.Fatal(err)
	}
	_ = stdin.Close()
	ended(t, func() error { return p.Stop(stopTimeout) })
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	done := bufio.NewReader(f)
	for i := range 2000 {
		fmt.Fprintf(words, "word %d\n", i)
		if _, err := done.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("word %d\n", i); !strings.HasSuffix(p.Output(), want) {
			t.Fatalf("%q is not in the output", want)
		}
	}
	if err := words.Close(); err != nil { // the program ends by itself
		t.Fatal(err)
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
