package integration

import (
	"testing"

	"github.com/larder-project/larder/integration/internal/disks"
)

// Power fails while clients pull and while larder starts. It starts again
// without help, has all that it said it has, and nothing else.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	kinds := disks.Kinds()
	cuts := count(t, "LARDER_CUTS", 60)
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			disk := disks.New(t, disks.Options{Kind: kind, Size: 8 << 30})
			c := newCrash(t, disk.Path)
			c.happen = func() {
				disk.Cut()
				c.noError(c.l.Kill())
				disk.Revive()
			}
			c.rounds((cuts + len(kinds) - 1) / len(kinds))
			disk.Check()
		})
	}
}

// The same for a process that is killed.
func TestKills(t *testing.T) {
	t.Parallel()
	c := newCrash(t, t.TempDir())
	c.rounds(count(t, "LARDER_KILLS", 50))
}

// Publishing is a rename: killed at one of the first 20 of a thread, larder has
// all that came before.
func TestKilledAtRename(t *testing.T) {
	t.Parallel()
	c := newCrash(t, t.TempDir())
	for n := 1; n <= 20; n++ {
		c.start()
		c.atCall(n, "renameat", "renameat2")
		c.checkFiles()
		if t.Failed() {
			t.Fatalf("at rename %d", n)
		}
	}
	c.endSeason()
	c.report(20)
}
