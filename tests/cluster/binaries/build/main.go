// Command build fills the cache of package binaries, so that tests need not.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/ebb-lb/ebb/tests/cluster/binaries"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	set, err := binaries.Ensure(ctx, "kube", os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(set.APIServer)
	fmt.Println(set.ControllerManager)
}
