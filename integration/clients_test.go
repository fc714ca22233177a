package integration

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
)

// clientsEnv has this test's binary be many clients, as clients in JSON: one
// process has not the file descriptors for both ends of ten thousand connections.
const clientsEnv = "LARDER_TEST_CLIENTS"

// clients is a crowd at one URL of the mirror.
type clients struct {
	URL string
	// Count connect at once, and each asks Rounds times, on new connections.
	Count, Rounds int
	// Digest that each answer of 200 must have, in hex.
	Digest string
	// Limit for one answer.
	Limit time.Duration
	// Mute clients send the begin of a request and no more, Slow ones read a byte
	// a second. They stay until standard input ends.
	Mute, Slow bool
}

// crowd is what happened to clients.
type crowd struct {
	Whole, Wrong, Refused, Reset, Late int
	Errors                             map[string]int // of another kind
	Took                               time.Duration
	P50, P99, Max                      time.Duration // of an answer
}

// beClients is main of the process: it prints "sent" when all have sent their first
// request, "answered" when all have the header of its answer, and the crowd in the
// end.
func beClients(spec string) int {
	var c clients
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	address, path, _ := strings.Cut(strings.TrimPrefix(c.URL, "http://"), "/")
	r := &runner{clients: c, address: address, path: "/" + path, crowd: crowd{Errors: map[string]int{}}}
	begun := time.Now()
	var sent, answered, done sync.WaitGroup
	sent.Add(c.Count)
	answered.Add(c.Count)
	stay, leave := context.WithCancel(context.Background())
	for range c.Count {
		done.Go(func() { r.run(stay, sync.OnceFunc(sent.Done), sync.OnceFunc(answered.Done)) })
	}
	sent.Wait()
	fmt.Fprintln(os.Stdout, "sent")
	go func() {
		answered.Wait()
		fmt.Fprintln(os.Stdout, "answered")
	}()
	if c.Mute || c.Slow {
		_, _ = io.Copy(io.Discard, os.Stdin)
		leave()
	}
	done.Wait()
	leave()
	r.Took = time.Since(begun)
	if slices.Sort(r.took); len(r.took) > 0 {
		r.P50, r.P99, r.Max = r.took[len(r.took)/2], r.took[len(r.took)*99/100], r.took[len(r.took)-1]
	}
	out, err := json.Marshal(r.crowd)
	if err != nil {
		return 1
	}
	fmt.Fprintln(os.Stdout, "crowd "+string(out))
	return 0
}

type runner struct {
	clients
	address, path string

	mu sync.Mutex // guards what follows
	crowd
	took []time.Duration
}

func (r *runner) run(stay context.Context, sent, answered func()) {
	defer sent()
	defer answered()
	for range max(1, r.Rounds) {
		begun := time.Now()
		whole, status, err := r.ask(stay, sent, answered)
		r.count(whole, status, err, time.Since(begun))
	}
}

func (r *runner) count(whole bool, status int, err error, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took = append(r.took, took)
	switch {
	case r.Mute || r.Slow: // what comes of these is not of interest
	case errors.Is(err, os.ErrDeadlineExceeded):
		r.Late++
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF):
		r.Reset++
	case err != nil:
		r.Errors[err.Error()]++
	case status == http.StatusServiceUnavailable:
		r.Refused++
	case status == http.StatusOK && whole:
		r.Whole++
	default:
		r.Wrong++
	}
}

// ask is one request on a connection of its own.
func (r *runner) ask(stay context.Context, sent, answered func()) (whole bool, status int, err error) {
	conn, err := (&net.Dialer{Timeout: r.Limit}).DialContext(stay, "tcp4", r.address)
	if err != nil {
		return false, 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(stay, func() { conn.Close() })()
	if !r.Mute && !r.Slow {
		if err := conn.SetDeadline(time.Now().Add(r.Limit)); err != nil {
			return false, 0, err
		}
	}
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", r.path, r.address)
	if !r.Mute {
		request += "\r\n"
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return false, 0, err
	}
	sent()
	if r.Slow {
		return r.readSlowly(stay, conn)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, 0, err
	}
	defer resp.Body.Close()
	answered()
	h := sha256.New()
	n, err := io.Copy(h, resp.Body)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("cut after %d bytes: %w", n, io.EOF)
	}
	return hex.EncodeToString(h.Sum(nil)) == r.Digest, resp.StatusCode, err
}

func (r *runner) readSlowly(stay context.Context, conn net.Conn) (bool, int, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			return false, 0, err
		}
		select {
		case <-tick.C:
		case <-stay.Done():
			return false, 0, stay.Err()
		}
	}
}

// group is a running process of clients.
type group struct {
	t     *testing.T
	proc  *parts.Process
	stdin *os.File
}

// start starts the clients and returns when all have sent.
func (c clients) start(t *testing.T) *group {
	t.Helper()
	if c.Limit == 0 {
		c.Limit = patience
	}
	spec, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	proc, err := parts.StartWith(parts.StartOptions{Stdin: r}, self, []string{clientsEnv + "=" + string(spec)})
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	g := &group{t: t, proc: proc, stdin: w}
	t.Cleanup(func() {
		w.Close()
		if err := proc.Kill(); err != nil {
			t.Error(err)
		}
	})
	if _, err := proc.WaitLine(t.Context(), "sent"); err != nil {
		t.Fatal(err)
	}
	return g
}

// answered returns when all have the header of an answer.
func (g *group) answered() {
	g.t.Helper()
	if _, err := g.proc.WaitLine(g.t.Context(), "answered"); err != nil {
		g.t.Fatal(err)
	}
}

// end lets mute and slow clients go, waits for all, and tells what happened.
func (g *group) end() crowd {
	g.t.Helper()
	g.stdin.Close()
	ctx, cancel := context.WithTimeout(g.t.Context(), 3*patience)
	defer cancel()
	line, err := g.proc.WaitLine(ctx, "crowd ")
	if err != nil {
		g.t.Fatal(err)
	}
	var c crowd
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "crowd ")), &c); err != nil {
		g.t.Fatal(err)
	}
	return c
}

// count is n of the environment, for the nightly run, or else few.
func count(t *testing.T, name string, few int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return few
	}
	n := 0
	if _, err := fmt.Sscan(text, &n); err != nil || n <= 0 {
		t.Fatalf("%s=%q: want a number", name, text)
	}
	return n
}
