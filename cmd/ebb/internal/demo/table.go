package demo

import (
	"fmt"
	"io"
	stdmaps "maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/ebb-lb/ebb/maps"
)

// maxFailuresShown is how many failures the table tells in full.
const maxFailuresShown = 10

// WriteTable writes r for people. Scripts use the JSON form.
func (r Result) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ACT\tREQUESTS\tFAILED\tP50\tP99\tTCP\tTRANSFERS\tUDP")
	for _, a := range r.Acts {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%d\t%d\t%d\n", a.Name, a.Requests, a.Failed,
			micros(a.P50Micros), micros(a.P99Micros), a.TCP.Requests, a.Transfers.Requests, a.UDP.Requests)
	}
	fmt.Fprintln(t, "\nBACKEND\tNODE\tCONNECTIONS\tTRANSFERS\tDATAGRAMS")
	for _, b := range r.Backends {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\n", b.Pod, b.Node, b.Connections, b.Transfers, b.Datagrams)
	}
	r.writePackets(t)
	r.writeFailures(t)
	return t.Flush()
}

func (r Result) writePackets(w io.Writer) {
	hooks := []string{maps.HookXDP.String(), maps.HookTCIngress.String(), maps.HookTCEgress.String(), maps.HookSocket.String()}
	fmt.Fprintln(w, "\nPACKETS TRANSLATED\tXDP\tTC INGRESS\tTC EGRESS\tSOCKETS DIALLED")
	for _, node := range slices.Sorted(stdmaps.Keys(r.Packets)) {
		fmt.Fprint(w, node)
		for _, h := range hooks {
			fmt.Fprintf(w, "\t%d", r.Packets.translated(node, h))
		}
		fmt.Fprintln(w)
	}
}

func (r Result) writeFailures(w io.Writer) {
	if r.Failed == 0 {
		fmt.Fprintln(w, "\nno failures")
		return
	}
	fmt.Fprintf(w, "\n%d failed; the first:\n", r.Failed)
	for _, f := range r.Failures[:min(len(r.Failures), maxFailuresShown)] {
		fmt.Fprintf(w, "  %.1fs %s: %s %s %s: %s\n", float64(f.AtMillis)/1000, f.Act, f.Kind, f.Target, f.Pod, f.Error)
	}
}

func micros(n int64) string {
	return (time.Duration(n) * time.Microsecond).Round(10 * time.Microsecond).String()
}
