package loader

import (
	"context"

	"github.com/ebb-lb/ebb/maps"
)

// Routes are the routes and neighbours of the caller's network namespace.
type Routes struct{}

// Watch is [WatchRoutes].
func (Routes) Watch(ctx context.Context, tell func(RouteNews)) error { return WatchRoutes(ctx, tell) }

// Neighbours is [Neighbours].
func (Routes) Neighbours() ([]Neighbour, error) { return Neighbours() }

// Use is [UseNeighbour].
func (Routes) Use(h maps.NextHop) error { return UseNeighbour(h) }

// AnyMultipath is [AnyMultipath].
func (Routes) AnyMultipath() (bool, error) { return AnyMultipath() }

// AnyBySource is [AnyBySource].
func (Routes) AnyBySource() (bool, error) { return AnyBySource() }
