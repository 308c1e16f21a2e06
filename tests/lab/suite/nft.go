package suite

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
)

// nftBound is the longest time for one transaction, with thousands of rules.
const nftBound = time.Minute

// Nft has nft execute commands in ns, in one transaction.
func Nft(ctx context.Context, ns *lab.NS, commands string) error {
	said := &Output{}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(commands), said, said
	p, err := ns.Start(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, nftBound)
	defer cancel()
	select {
	case <-p.Done():
		err = p.Err()
	case <-ctx.Done():
		err = errors.Join(ctx.Err(), p.Kill())
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, said)
	}
	return nil
}
