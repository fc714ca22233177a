package load

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Plan is a load. It travels to the process that makes it as JSON.
type Plan struct {
	// Address is the server's IPv4 address and port.
	Address string
	// Method is GET or HEAD, Path what is asked for. Accept is sent if not "".
	Method, Path, Accept string
	// Size is what Content-Length has to be in each answer.
	Size int64
	// Conns connections each have one request under way at a time: Each of them in
	// a row, or, where Each is 0, as many as begin within For.
	Conns, Each int
	For         time.Duration
	// Limit is how long all of it may take.
	Limit time.Duration
}

// Result is what came of it.
type Result struct {
	Requests int64
	// Bytes of bodies.
	Bytes int64
	Took  time.Duration
	// Median, P99 and Max of what one request took.
	Median, P99, Max time.Duration
	// Busy is how long the machine's cores were busy meanwhile, all together, and Own
	// what this process had of it.
	Busy, Own time.Duration
}

// request is the text of the plan's request.
func (p Plan) request() []byte {
	accept := ""
	if p.Accept != "" {
		accept = "Accept: " + p.Accept + "\r\n"
	}
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", p.Method, p.Path, p.Address, accept)
}

// body is how many bytes follow the header of an answer.
func (p Plan) body() int64 {
	if p.Method == http.MethodHead {
		return 0
	}
	return p.Size
}

func (p Plan) check() (netip.AddrPort, error) {
	address, err := netip.ParseAddrPort(p.Address)
	if err != nil || !address.Addr().Is4() {
		return address, fmt.Errorf("load: address %q: want an IPv4 address and a port", p.Address)
	}
	if p.Conns < 1 || p.Each < 0 || p.Limit <= 0 || p.Each == 0 && p.For <= 0 || !strings.HasPrefix(p.Path, "/") {
		return address, fmt.Errorf("load: plan %+v says too little", p)
	}
	return address, nil
}

// took sets the result's times from those of all requests.
func (r *Result) took(all []time.Duration) {
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	r.Median, r.P99, r.Max = all[len(all)/2], all[len(all)*99/100], all[len(all)-1]
}
