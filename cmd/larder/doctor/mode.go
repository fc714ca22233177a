package doctor

import (
	"fmt"

	"github.com/larder-project/larder/plugin/containerdconf"
)

// Mode says whether containerd's configuration has larder do for containerd what
// larder is configured to do, at the same socket.
func Mode(config string, served containerdconf.Mode, socket string) Result {
	const check = "containerd mode"
	wanted, at, err := containerdconf.Present(config)
	if err != nil {
		return cannotRead(check, err)
	}
	setup := fmt.Sprintf("larder setup containerd --mode %s, and restart containerd", served)
	switch {
	case wanted == served && (wanted == containerdconf.Mirror || at == socket):
		return Fine(check, "%s, for containerd and for larder", served)
	case wanted == served:
		return Bad(Problem, check, fmt.Sprintf("containerd asks larder at %s, and larder serves it at proxy.socket %s", at, socket), setup)
	case wanted == containerdconf.Mirror:
		return Bad(Warning, check, fmt.Sprintf("[proxy] serves mode %s, and containerd's configuration has no file of larder's for it", served),
			setup+"; or set proxy.enabled = false. If another program writes its tables there, all is well")
	case wanted == containerdconf.Proxy:
		return Bad(Problem, check, fmt.Sprintf("containerd has its content in larder, and [proxy] serves mode %s: no pod can be started", served),
			"set [proxy] enabled = true and services = [\"content\", \"diff\"], and restart larder; the way back is larder eject")
	}
	return Bad(Problem, check, fmt.Sprintf("containerd has layers unpacked by larder, and [proxy] serves mode %s: pulls fail", served),
		"set [proxy] enabled = true and services = [\"diff\"], and restart larder; or: larder setup containerd --undo, and restart containerd")
}
