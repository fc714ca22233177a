package upstream

import (
	"cmp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-project/larder/remotes/upstream/ranged"
	"golang.org/x/time/rate"
)

// maxAccounts bounds how many accounts of larder's own are remembered for a host,
// and how many of callers: pull secrets can name any user, and must not drive out
// what is known of those that are in use.
const maxAccounts = 64

// site is what all clients of one upstream host share: the ledger of its
// accounts, and the places and the speed that larder allows itself. It is safe
// for concurrent use.
type site struct {
	host    string
	reserve int64
	places  places
	speed   *rate.Limiter // of blob bodies; nil: no bound
	pace    pace          // that was measured

	parallel int             // connections for one blob at most
	governor ranged.Governor // says how many are worth it

	mu       sync.Mutex // guards what follows, and the accounts' known
	accounts *lru.Cache[string, *account]
	callers  *lru.Cache[string, *account]
	alone    time.Time // nobody asks before this: a 503 with Retry-After
}

// account is one entry of a site's ledger. Counting bytes takes no lock.
type account struct {
	known Account // but for its Bytes
	bytes atomic.Int64
}

func newSite(host string, own Host, o Options) *site {
	accounts, _ := lru.New[string, *account](maxAccounts) // fails only for a size below 1
	callers, _ := lru.New[string, *account](maxAccounts)
	if own.MaxConnections == 0 {
		own.MaxConnections = o.MaxConnections
	}
	if own.MaxSpeed == 0 {
		own.MaxSpeed = o.MaxSpeed
	}
	parallel := cmp.Or(own.Parallel, o.Parallel)
	places := newPlaces(own.MaxConnections, o.Waits)
	if own.MaxSpeed > 0 || !places.haveSpare() {
		parallel = 1 // what larder itself slows down is not measured
	}
	return &site{
		parallel: parallel,
		host:     host, reserve: o.Reserve, accounts: accounts, callers: callers,
		places: places, speed: newSpeed(own.MaxSpeed),
	}
}

// known is what is known of an account, and until when nobody asks. It makes
// no entry.
func (s *site) known(name string) (known Account, alone time.Time) {
	a, ok := s.of(name).Get(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ok {
		known = a.known
	}
	return known, s.alone
}

// account returns the entry of an account, a new one if it has none.
func (s *site) account(name string) *account {
	accounts := s.of(name)
	if a, ok := accounts.Get(name); ok {
		return a
	}
	shown, _, _ := strings.Cut(name, "\x00")
	a := &account{known: Account{Host: s.host, Account: shown}}
	if old, ok, _ := accounts.PeekOrAdd(name, a); ok {
		return old
	}
	return a
}

// of returns the accounts among which a name is: see Client.accountOf.
func (s *site) of(name string) *lru.Cache[string, *account] {
	if strings.Contains(name, "\x00") {
		return s.callers
	}
	return s.accounts
}
