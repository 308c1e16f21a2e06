package load

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Command is what a Runner is told, one JSON object per line.
type Command struct {
	// Act names the act that begins. Transfers in it take at most
	// TransferMillis, and end with the act where its end is known.
	Act            string `json:"act,omitempty"`
	TransferMillis int64  `json:"transferMillis,omitempty"`
	EndsInMillis   int64  `json:"endsInMillis,omitempty"`
	// Stop ends the load.
	Stop bool `json:"stop,omitempty"`
}

// Report is everything counted so far, one JSON object per line.
type Report struct {
	Acts []ActReport `json:"acts"`
	Pods []PodReport `json:"pods"`
	// BeganMillis is when the load began, in milliseconds since 1970.
	BeganMillis int64 `json:"beganMillis"`
	// Failures are the first ones, in order.
	Failures []Failure `json:"failures,omitempty"`
	// Final means that no operation is under way any more.
	Final bool `json:"final"`
}

// ActReport is what began in one act.
type ActReport struct {
	Name  string              `json:"name"`
	Kinds map[Kind]KindReport `json:"kinds"`
}

// KindReport counts operations of one kind. Latency is of those that succeeded.
type KindReport struct {
	Requests  int   `json:"requests"`
	Failed    int   `json:"failed"`
	P50Micros int64 `json:"p50Micros"`
	P99Micros int64 `json:"p99Micros"`
}

// PodReport is what one pod has answered.
type PodReport struct {
	Pod         string `json:"pod"`
	Connections int    `json:"connections"`
	Transfers   int    `json:"transfers"`
	Datagrams   int    `json:"datagrams"`
}

// Failure is one operation that did not succeed. AtMillis counts from the
// start of the load.
type Failure struct {
	Act      string `json:"act"`
	Kind     Kind   `json:"kind"`
	Target   string `json:"target"`
	Pod      string `json:"pod,omitempty"`
	AtMillis int64  `json:"atMillis"`
	Error    string `json:"error"`
}

// Totals adds up the operations of all kinds.
func (a ActReport) Totals() (requests, failed int) {
	for _, k := range a.Kinds {
		requests += k.Requests
		failed += k.Failed
	}
	return requests, failed
}

// ReadCommands sends the commands in r to the returned channel, and closes it
// at the end of r or at the first line that is none.
func ReadCommands(r io.Reader) <-chan Command {
	commands := make(chan Command)
	go func() {
		defer close(commands)
		for d := json.NewDecoder(bufio.NewReader(r)); ; {
			var c Command
			if err := d.Decode(&c); err != nil {
				return
			}
			commands <- c
		}
	}()
	return commands
}

// WriteLine writes v as one line of JSON.
func WriteLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %T: %w", v, err)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
