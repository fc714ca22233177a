package parts

import (
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
)

// Proxy is an HTTP proxy that knows a few host names and leads each to a server
// of the test. A program finds it by its environment, so that the names of the
// real world work without DNS, and nothing leaves the machine.
type Proxy struct {
	server *server
	routes map[string]string

	tunnels sync.WaitGroup
	mu      sync.Mutex // guards all below
	targets []string
	open    map[net.Conn]bool
	closed  bool
}

// StartProxy tunnels CONNECT requests for the keys of routes, as host:port, to
// the addresses there; any other is answered 502.
func StartProxy(routes map[string]string) (*Proxy, error) {
	p := &Proxy{routes: routes, open: map[net.Conn]bool{}}
	var err error
	p.server, err = serve(http.HandlerFunc(p.connect), nil)
	return p, err
}

// Env has a program use the proxy for https, whatever the environment of the
// test says. Go programs never use one for loopback.
func (p *Proxy) Env() []string {
	return []string{
		"HTTPS_PROXY=" + p.server.URL(), "https_proxy=", "HTTP_PROXY=", "http_proxy=",
		"NO_PROXY=", "no_proxy=", "ALL_PROXY=", "all_proxy=",
	}
}

// Targets are the host:port that were asked for, refused ones included.
func (p *Proxy) Targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.targets)
}

// Close ends the proxy and its tunnels.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	for conn := range p.open {
		conn.Close()
	}
	p.mu.Unlock()
	err := p.server.Close()
	p.tunnels.Wait()
	return err
}

func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.targets = append(p.targets, r.Host)
	to, known := p.routes[r.Host]
	p.mu.Unlock()
	if r.Method != http.MethodConnect || !known {
		http.Error(w, "this proxy does not know "+r.Host, http.StatusBadGateway)
		return
	}
	there, err := new(net.Dialer).DialContext(r.Context(), "tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		there.Close()
		return
	}
	if !p.keep(here, there) {
		return
	}
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	go p.copy(here, there)
	go p.copy(there, here)
}

// keep notes a tunnel for Close, unless the proxy is closed already.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		for _, conn := range conns {
			conn.Close()
		}
		return false
	}
	for _, conn := range conns {
		p.open[conn] = true
	}
	p.tunnels.Add(len(conns))
	return true
}

// copy carries one direction; its end is the end of the tunnel.
func (p *Proxy) copy(to, from net.Conn) {
	defer p.tunnels.Done()
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, from)
}
