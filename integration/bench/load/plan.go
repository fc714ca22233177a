package load

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Plan is a load. It travels to the process that makes it as JSON.
type Plan struct {
	// Address is the server's IPv4 address and port.
	Address string
	// Method is GET or HEAD, Path what is asked for. Accept is sent if not "".
	Method, Path, Accept string
	// Turns, if it is more than 0, is how many paths are asked for in turn: those that
	// have a number from 0 up in place of the one * in Path. All answers have the
	// same Size.
	Turns int
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

// requests are the texts of the plan's requests, one for each path.
func (p Plan) requests() [][]byte {
	accept := ""
	if p.Accept != "" {
		accept = "Accept: " + p.Accept + "\r\n"
	}
	all := make([][]byte, max(p.Turns, 1))
	for i := range all {
		path := p.Path
		if p.Turns > 0 {
			path = strings.Replace(path, "*", strconv.Itoa(i), 1)
		}
		all[i] = fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", p.Method, path, p.Address, accept)
	}
	return all
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
	if p.Conns < 1 || p.Each < 0 || p.Limit <= 0 || p.Each == 0 && p.For <= 0 || !strings.HasPrefix(p.Path, "/") ||
		p.Turns < 0 || p.Turns > 0 && strings.Count(p.Path, "*") != 1 {
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
