package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-lb/ebb/tests/lab/pod"
	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// The test binary is also what runs in pods: these variables say so.
const (
	podEnv = "EBB_CLUSTER_POD" // holds the kind of pod
	// quietEnv is how many milliseconds a patient pod waits for the last client.
	quietEnv = "EBB_CLUSTER_QUIET"
)

// The kinds of pods.
const (
	// patient pods serve on until nobody asks any more.
	patient = "patient"
	// hasty pods stop to listen when they are asked to end.
	hasty = "hasty"
	// dns pods are patient ones beside a DNS server.
	dns = "dns"
)

// podBound is how long a pod takes to end at most.
const podBound = 50 * time.Second

// ebb is the binary under test, built from the source around this module.
var ebb string

func TestMain(m *testing.M) {
	suite.PlayClient()
	if kind, ok := os.LookupEnv(podEnv); ok {
		exit(servePod(kind))
	}
	dir, err := os.MkdirTemp("", "ebb-cluster-")
	if err != nil {
		exit(err)
	}
	ebb = filepath.Join(dir, "ebb")
	build := exec.Command("go", "build", "-o", ebb, "./cmd/ebb")
	build.Dir = "../.." // with the versions of its own module
	if out, err := build.CombinedOutput(); err != nil {
		exit(errors.Join(fmt.Errorf("build: %w\n%s", err, out), os.RemoveAll(dir)))
	}
	code := m.Run()
	if err := closeShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	if err := os.RemoveAll(dir); err != nil {
		exit(err)
	}
	os.Exit(code)
}

func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// closedLine is what a hasty pod writes when it has stopped to listen, with the
// time in nanoseconds since 1970.
const closedLine = "closed "

// servePod is the whole process of a pod.
func servePod(kind string) error {
	l, err := net.Listen("tcp", fmt.Sprint(":", pod.HTTPPort))
	if err != nil {
		return err
	}
	c, err := net.ListenPacket("udp", fmt.Sprint(":", pod.UDPPort))
	if err != nil {
		return err
	}
	quiet, err := strconv.Atoi(os.Getenv(quietEnv))
	if err != nil {
		return err
	}
	if kind == dns {
		if err := startDNS(); err != nil {
			return err
		}
	}
	drain := make(chan struct{})
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	go func() { <-asked; close(drain) }()
	return pod.New(pod.Config{
		Name: os.Getenv("POD_NAME"), Quiet: time.Duration(quiet) * time.Millisecond, Bound: podBound,
		Hasty:  kind == hasty,
		Closed: func() { fmt.Printf("%s%d\n", closedLine, time.Now().UnixNano()) },
	}).Run(context.Background(), l, c, drain)
}
