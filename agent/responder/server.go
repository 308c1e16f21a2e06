// Package responder answers the probes of external balancers. A responder is a
// process of its own that owns the listening sockets: the agent tells it what to
// answer and may end in any way; the last answers stand for a bounded time. A
// responder is replaced by handing its sockets to its successor. It knows sockets
// and processes. It deliberately does not know what makes a node healthy: package
// health does.
package responder

import (
	"context"
	"fmt"
	stdmaps "maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/service"
)

// closeBound is how long answers that have begun may take when a socket closes.
const closeBound = time.Second

// Update is what an agent tells. It also says that the agent is alive.
type Update struct {
	// Addr is where /healthz and /livez are served, as host:port; empty: nowhere.
	Addr string `json:"addr"`
	// StaleAfter is how long a View is good for.
	StaleAfter time.Duration `json:"staleAfter"`
	// View is nil if the agent does not know yet; an earlier one stands.
	View *health.View `json:"view,omitempty"`
	// Complete is when the last sync was that left nothing to do, for as long as
	// there is no View to say so; zero: not known.
	Complete time.Time `json:"complete,omitzero"`
}

// Status is what the agent is told in return.
type Status struct {
	// Failed are the sockets that could not be opened. It is tried again with
	// every Update.
	Failed []Failure `json:"failed,omitempty"`
	// Answers are the answers of the node's probes so far.
	Answers []Answers `json:"answers,omitempty"`
}

// Failure is a socket that could not be opened.
type Failure struct {
	Service service.Name `json:"service"` // zero: the probes of the node
	Addr    string       `json:"addr"`
	Error   string       `json:"error"`
}

// Answers counts the answers of a probe ("healthz", "livez") with a status code.
type Answers struct {
	Probe string `json:"probe"`
	Code  int    `json:"code"`
	Count uint64 `json:"count"`
}

// key names a listening socket.
type key struct {
	Service service.Name `json:"service"` // zero: the probes of the node
	Addr    string       `json:"addr"`
}

// Server answers from the last Update. It is safe for concurrent use. Close it.
type Server struct {
	orders health.OrderFile

	telling sync.Mutex // held while sockets are opened, closed or handed over

	mu      sync.Mutex
	update  Update
	viewed  time.Time // when its View came
	sockets map[key]*socket
	answers map[Answers]uint64 // by probe and code
	closed  bool

	ending sync.WaitGroup // sockets that finish answers
}

// NewServer returns a Server that does not listen yet. It honours the drain
// order in a file.
func NewServer(orders health.OrderFile) *Server {
	return &Server{orders: orders, sockets: map[key]*socket{}, answers: map[Answers]uint64{}}
}

// Apply makes u what is answered, and opens and closes sockets accordingly.
func (s *Server) Apply(u Update) Status {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.View != nil {
		s.viewed = time.Now()
	}
	u.View = merged(s.update.View, u.View)
	s.update = u
	return Status{Failed: s.listen(), Answers: s.counts()}
}

// merged returns what stands of the last word, nil if there is none, after the
// next.
func merged(last, next *health.View) *health.View {
	if next == nil {
		return last
	}
	if last == nil || !next.Unsynced {
		return next
	}
	v := *next
	v.Listen, v.Services = last.Listen, last.Services
	return &v
}

// listen opens what is wanted, then closes what is not: a service whose port
// changes is never without one. What was in the way is tried again.
func (s *Server) listen() []Failure {
	if s.closed {
		return nil
	}
	wanted := s.update.sockets()
	failed := s.open(wanted)
	for k, l := range s.sockets {
		if _, ok := wanted[k]; !ok {
			delete(s.sockets, k)
			s.end(l)
		}
	}
	if len(failed) > 0 {
		failed = s.open(wanted)
	}
	return failed
}

func (s *Server) open(wanted map[key]netip.AddrPort) []Failure {
	var failed []Failure
	for k, addr := range wanted {
		if s.sockets[k] != nil {
			continue
		}
		l, err := listen(k, addr)
		if err != nil {
			failed = append(failed, Failure{Service: k.Service, Addr: k.Addr, Error: err.Error()})
			continue
		}
		s.serve(k, addr, l)
	}
	slices.SortFunc(failed, func(a, b Failure) int { return a.Service.Compare(b.Service) })
	return failed
}

// sockets returns where to listen. The address of the node's probes is left to
// the resolver: it may have a name.
func (u Update) sockets() map[key]netip.AddrPort {
	wanted := make(map[key]netip.AddrPort)
	if u.Addr != "" {
		wanted[key{Addr: u.Addr}] = netip.AddrPort{}
	}
	if u.View == nil {
		return wanted
	}
	for _, svc := range u.View.Services {
		for _, a := range u.View.Listen {
			addr := netip.AddrPortFrom(a, svc.Port)
			wanted[key{Service: svc.Name, Addr: addr.String()}] = addr
		}
	}
	return wanted
}

func (s *Server) serve(k key, addr netip.AddrPort, l *net.TCPListener) {
	h := health.NodeHandler(s.current, s.count)
	if k.Service != (service.Name{}) {
		h = health.ServiceHandler(s.current, k.Service, health.FamilyOf(addr.Addr()), addr.Port())
	}
	s.sockets[k] = serve(l, h)
}

// end closes a socket at once, and lets answers that have begun finish.
func (s *Server) end(l *socket) {
	l.stopListening()
	s.ending.Go(l.finish)
}

// current is what probes are answered from now.
func (s *Server) current() health.Current {
	now := time.Now()
	order := s.orders.Current(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.update.View == nil {
		return health.Current{Time: now, Order: order, View: health.View{Node: health.Node{
			Eligible: true, Reason: "no complete sync yet", Complete: s.update.Complete, Families: []health.Family{health.IPv4, health.IPv6},
		}}}
	}
	c := health.Current{View: *s.update.View, Time: now, Order: order}
	if age := now.Sub(s.viewed); age > s.update.StaleAfter {
		c.Node = c.Node.Unhealthy(fmt.Sprintf("no word from the agent for %s", age.Round(time.Second)))
	}
	return c
}

func (s *Server) count(probe string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[Answers{Probe: probe, Code: code}]++
}

// counts also has what was never answered, so that a rate can be told from the
// beginning.
func (s *Server) counts() []Answers {
	all := map[Answers]uint64{}
	for _, probe := range []string{"healthz", "livez"} {
		for _, code := range []int{http.StatusOK, http.StatusServiceUnavailable} {
			all[Answers{Probe: probe, Code: code}] = 0
		}
	}
	stdmaps.Copy(all, s.answers)
	var list []Answers
	for a, n := range all {
		a.Count = n
		list = append(list, a)
	}
	return list
}

// Close closes all sockets, and waits a bounded time for answers that have begun.
// It opens none any more.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.sockets {
		s.end(l)
	}
	clear(s.sockets)
	s.mu.Unlock()
	s.ending.Wait()
}

// socket is a listening socket and what answers there.
type socket struct {
	listener *net.TCPListener
	server   *http.Server
	served   chan struct{}
	conns    sync.WaitGroup
}

func serve(l *net.TCPListener, h http.Handler) *socket {
	s := &socket{listener: l, served: make(chan struct{})}
	s.server = &http.Server{
		Handler: h, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: quiet(), ConnState: s.connState,
	}
	go func() {
		defer close(s.served)
		// It ends with an error in any case; what matters is that it was told to.
		_ = s.server.Serve(&proxyListener{l})
	}()
	return s
}

// stopListening returns when no connection can be made any more, except to
// copies of the socket in other processes.
func (s *socket) stopListening() {
	_ = s.listener.Close() // of a listener that is there
	<-s.served
}

// finish lets connections that were made have their answers. It cannot be done by
// (*http.Server).Shutdown, which cuts those that have not been read from yet.
func (s *socket) finish() {
	s.server.SetKeepAlivesEnabled(false)
	ended := make(chan struct{})
	go func() { s.conns.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(closeBound):
	}
	_ = s.server.Close() // what does not end in time is cut
}

// connState keeps count of connections. A new one is counted before the server
// stops serving.
func (s *socket) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	}
}

// listen opens the socket k. Health check node ports are of one family.
func listen(k key, addr netip.AddrPort) (*net.TCPListener, error) {
	network, host := "tcp", k.Addr
	var lc net.ListenConfig
	if addr.IsValid() {
		network = "tcp6"
		if addr.Addr().Is4() {
			network = "tcp4"
		}
		host = net.JoinHostPort(addr.Addr().String(), strconv.Itoa(int(addr.Port())))
		lc.Control = freebind
	}
	l, err := lc.Listen(context.Background(), network, host)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}
