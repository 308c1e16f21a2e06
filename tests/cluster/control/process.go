package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
)

const (
	probeEvery = 50 * time.Millisecond
	probeBound = 2 * time.Second
	// tail is how much of a log is told when its process fails, in bytes.
	tail = 4 << 10
)

// run starts a program on the machine; its log is in a file of its name.
func (p *Plane) run(name, program string, args ...string) (*lab.Process, error) {
	log, err := os.OpenFile(p.log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.cfg.Dir, log, log
	return p.cfg.Machine.Start(cmd)
}

func (p *Plane) log(name string) string { return p.path(name + ".log") }

// await asks url until the answer is 200.
func (p *Plane) await(ctx context.Context, process *lab.Process, name, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	client, err := p.prober()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		err := getOK(ctx, client, url)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-process.Done():
			return p.ended(name, process)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w\n%s", name, err, p.lastWords(name))
		}
	}
}

// prober is an HTTP client of the administrator, from the machine itself.
func (p *Plane) prober() (*http.Client, error) {
	cert, err := tls.LoadX509KeyPair(p.files.admin.cert, p.files.admin.key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	text, err := os.ReadFile(p.ca.certFile())
	if err != nil {
		return nil, err
	}
	roots.AppendCertsFromPEM(text)
	return &http.Client{Timeout: probeBound, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return p.cfg.Machine.Dial(ctx, network, addr)
		},
	}}, nil
}

func getOK(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %s", url, resp.Status)
	}
	return nil
}

func (p *Plane) ended(name string, process *lab.Process) error {
	return fmt.Errorf("%s ended: %v\n%s", name, process.Err(), p.lastWords(name))
}

func (p *Plane) lastWords(name string) string {
	text, err := os.ReadFile(p.log(name))
	if err != nil {
		return err.Error()
	}
	return strings.ToValidUTF8(string(text[max(0, len(text)-tail):]), "?")
}
