package kubelet

import "bytes"

// lines is a writer that hands on what is written line by line. It is used by
// one goroutine, which copies the output of a process.
type lines struct {
	tell    func(line string)
	partial []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.partial = append(l.partial, p...)
	for {
		line, rest, ok := bytes.Cut(l.partial, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.tell(string(line))
		l.partial = rest
	}
}
