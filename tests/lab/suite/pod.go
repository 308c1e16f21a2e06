package suite

import (
	"context"
	"fmt"
	"testing"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// ServePod runs the application of a pod in ns, on these ports, in the process of
// the test and until that ends.
func ServePod(t testing.TB, ns *lab.NS, name string, httpPort, udpPort int) {
	t.Helper()
	l, err := ns.Listen(t.Context(), "tcp", fmt.Sprint(":", httpPort))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ns.ListenPacket(t.Context(), "udp", fmt.Sprint(":", udpPort))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	go func() { ended <- pod.New(pod.Config{Name: name}).Run(ctx, l, c, nil) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
