package power

import (
	"context"
	"time"
)

// Orders is the way to a server without a BMC: an order signed by the signer, over the stream that the server holds open.
type Orders interface {
	// Restart has an order to restart signed for this life of a server, and laid down for delivery.
	Restart(ctx context.Context, server string, epoch uint64) error
	// Delivered reports whether the order was written to the server's stream, and whether the server was heard of since.
	Delivered(ctx context.Context, server string, epoch uint64) (delivered time.Time, heard time.Time, err error)
}
