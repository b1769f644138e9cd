package signer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"mayfly/internal/sshsig"
	"mayfly/inventory"
	"mayfly/inventory/store/keeper"
	"mayfly/rebuild/join"
	"mayfly/rebuild/order"
)

// Bounds of orders to restart. Whoever asks for them could end lives, so they are few: of a server, and of the whole fleet.
const (
	restartLife     = 5 * time.Minute
	restartsPerHour = 6
	leastFleetHour  = 6
	storeLimit      = 5 * time.Second
	storeFile       = keeper.File
)

type restartRequest struct {
	Server string `json:"server"`
	Epoch  uint64 `json:"epoch"`
}

type restartRecord struct {
	Server   string    `json:"server"`
	Epoch    uint64    `json:"epoch"`
	SHA256   string    `json:"sha256"`
	NotAfter time.Time `json:"not_after"`
	Test     bool      `json:"test"`
}

// restart signs that the present life of a server is to end and its machine to start anew: only of a server whose power driver is this
// order, that takes no users any more, and that no engineer is on.
func (s *server) restart(r restartRequest, now time.Time) (signedFile, error) {
	b, err := s.rules.bundle(now)
	if err != nil {
		return signedFile{}, err
	}
	srv, ok := b.Inventory.RebuiltServer(r.Server)
	if !ok {
		return signedFile{}, join.Refuse(join.ServerUnknown, "no server %q in fleet %q", r.Server, b.Inventory.Name)
	}
	if srv.Power.Driver != inventory.DriverOrder {
		return signedFile{}, join.Refuse(join.NotInInventory, "the power driver of %q is %q, not %q", r.Server, srv.Power.Driver, inventory.DriverOrder)
	}
	if err := s.lives.ending(r.Server, r.Epoch, now); err != nil {
		return signedFile{}, err
	}
	if err := s.leaves(r); err != nil {
		return signedFile{}, err
	}
	if err := s.rate.allow("orders to restart", r.Server, restartsPerHour, now); err != nil {
		return signedFile{}, err
	}
	// A fleet is not restarted at once, whoever asks: half of it in an hour.
	if err := s.rate.allow("orders to restart in the fleet", b.Inventory.Name, max(leastFleetHour, len(b.Inventory.Rebuilt())/2), now); err != nil {
		return signedFile{}, err
	}
	o := order.New(b.Inventory.Name, r.Server, r.Epoch, now, restartLife)
	data, err := o.Marshal()
	if err != nil {
		return signedFile{}, join.Refuse(join.RequestInvalid, "%v", err)
	}
	sig, err := sshsig.Sign(s.keys.ticket, order.Namespace, data)
	if err != nil {
		return signedFile{}, fmt.Errorf("signing the order to %q: %w", r.Server, err)
	}
	if _, err := order.Open(s.rules.trusts(), data, sig, r.Server, r.Epoch, now); err != nil {
		return signedFile{}, join.Refuse(join.RequestInvalid, "%v", err)
	}
	err = s.log.Append("restart", restartRecord{Server: r.Server, Epoch: r.Epoch, SHA256: sum(data), NotAfter: o.NotAfter, Test: b.Inventory.Test})
	if err != nil {
		return signedFile{}, err
	}
	return signedFile{Data: data, Signature: sig}, nil
}

// ending says whether a life is the present one and may be ended.
func (l *lives) ending(server string, epoch uint64, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, err := l.load(server)
	switch {
	case err != nil:
		return err
	case v.Epoch == 0 || v.Epoch != epoch:
		return join.Refuse(join.LifeUnknown, "life %d of %q is not the present one, which is %d", epoch, server, v.Epoch)
	case now.Before(v.Drained):
		return heldBack(v)
	}
	return nil
}

// leaves asks the store whether the server takes users. The store is others' to write; a signer that is asked to end what serves says no all the same.
func (s *server) leaves(r restartRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), storeLimit)
	defer cancel()
	b, err := s.rules.bundle(time.Now())
	if err != nil {
		return err
	}
	address, err := inventory.ParseStoreAddress(b.Inventory.Controller.Store)
	if err != nil {
		return err
	}
	db, err := keeper.OpenReadOnly(ctx, s.rules.dir, address)
	if errors.Is(err, fs.ErrNotExist) {
		return join.Refuse(join.LifeUnknown, "no server was ever booted from here")
	}
	if err != nil {
		return err
	}
	have, err := db.Server(ctx, r.Server)
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if have.Epoch == r.Epoch && have.State == inventory.Serving {
		return join.Refuse(join.StillServing, "life %d of %q serves: it is drained first", r.Epoch, r.Server)
	}
	return nil
}

// Restart signs an order to restart to this life of a server.
func (c *Client) Restart(ctx context.Context, server string, epoch uint64) (data, sig []byte, err error) {
	f, err := ask[signedFile](ctx, c, pathRestart, restartRequest{Server: server, Epoch: epoch})
	return f.Data, f.Signature, err
}
