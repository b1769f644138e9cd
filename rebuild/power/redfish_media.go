package power

import (
	"context"
	"slices"
	"strings"
)

// virtualMedia is a drive of the BMC.
type virtualMedia struct {
	Path         string   `json:"@odata.id"`
	Image        string   `json:"Image"`
	Inserted     *bool    `json:"Inserted"`
	ConnectedVia string   `json:"ConnectedVia"`
	MediaTypes   []string `json:"MediaTypes"`
	Actions      struct {
		Insert action `json:"#VirtualMedia.InsertMedia"`
		Eject  action `json:"#VirtualMedia.EjectMedia"`
	} `json:"Actions"`
}

// maxDrives bounds how many drives are looked at.
const maxDrives = 8

func (v virtualMedia) empty() bool { return v.Image == "" && (v.Inserted == nil || !*v.Inserted) }

// target is what boots from the drive. Ours is an image of a disk, so a USB drive is the better one.
func (v virtualMedia) target() string {
	switch {
	case slices.Contains(v.MediaTypes, "USBStick"):
		return targetUSB
	case slices.Contains(v.MediaTypes, "CD"), slices.Contains(v.MediaTypes, "DVD"):
		return targetCD
	}
	return ""
}

// insert puts the image at url into a drive, reads that back, and says what boots from it.
func (d *redfish) insert(ctx context.Context, s computerSystem, url string) (target string, err error) {
	v, err := d.drive(ctx, s)
	if err != nil {
		return "", err
	}
	if v, err = d.eject(ctx, v); err != nil {
		return "", err
	}
	err = d.client.post(ctx, v.Actions.Insert.Target, map[string]any{"Image": url, "Inserted": true, "WriteProtected": true})
	if err != nil {
		return "", err
	}
	got, err := d.look(ctx, v.Path)
	switch {
	case err != nil:
		return "", err
	case got.Image != url || got.Inserted != nil && !*got.Inserted:
		return "", failf(MediaNotInserted, "it took the medium, and the drive holds %q", printable(withoutToken(got.Image, url)))
	case got.ConnectedVia == "NotConnected":
		return "", failf(MediaNotConnected, "the medium is in the drive, which is connected to no machine")
	}
	return v.target(), nil
}

// withoutToken leaves the secret in our own address out of what is told.
func withoutToken(got, url string) string {
	if got == url {
		return "ours"
	}
	if got != "" && strings.HasPrefix(url, got) {
		return "a part of our address"
	}
	return got
}

// joined ejects what a life booted from.
func (d *redfish) joined(ctx context.Context) error {
	if d.power.Boot != "media" {
		return nil
	}
	s, err := d.system(ctx)
	if err != nil {
		return err
	}
	v, err := d.drive(ctx, s)
	if err != nil {
		return err
	}
	_, err = d.eject(ctx, v)
	return err
}

// eject empties a drive and reads it back as empty.
func (d *redfish) eject(ctx context.Context, v virtualMedia) (virtualMedia, error) {
	if v.empty() {
		return v, nil
	}
	if v.Actions.Eject.Target == "" {
		return v, failf(BootUnsupported, "the drive has no action to eject its medium")
	}
	if err := d.client.post(ctx, v.Actions.Eject.Target, struct{}{}); err != nil {
		return v, err
	}
	got, err := d.look(ctx, v.Path)
	if err == nil && !got.empty() {
		err = failf(MediaNotEjected, "it took the command, and the old medium is still in the drive")
	}
	return got, err
}

// drive finds the drive to use: the system's own or its manager's, a USB drive before a CD drive.
func (d *redfish) drive(ctx context.Context, s computerSystem) (virtualMedia, error) {
	var places []string
	if s.VirtualMedia.ID != "" {
		places = append(places, s.VirtualMedia.ID)
	}
	for _, m := range s.Links.ManagedBy {
		var manager struct {
			VirtualMedia link `json:"VirtualMedia"`
		}
		if err := d.client.get(ctx, m.ID, &manager); err != nil {
			return virtualMedia{}, err
		}
		if manager.VirtualMedia.ID != "" {
			places = append(places, manager.VirtualMedia.ID)
		}
		if len(places) > 1 {
			break
		}
	}
	var best virtualMedia
	for _, place := range places {
		var all collection
		if err := d.client.get(ctx, place, &all); err != nil {
			return virtualMedia{}, err
		}
		for _, m := range all.Members[:min(len(all.Members), maxDrives)] {
			v, err := d.look(ctx, m.ID)
			if err != nil {
				return virtualMedia{}, err
			}
			if v.Actions.Insert.Target != "" && (v.target() == targetUSB || v.target() == targetCD && best.Path == "") {
				best = v
			}
		}
		if best.Path != "" {
			return best, nil
		}
	}
	return virtualMedia{}, failf(BootUnsupported, "the BMC has no drive that takes a medium by its address")
}

func (d *redfish) look(ctx context.Context, path string) (virtualMedia, error) {
	var v virtualMedia
	err := d.client.get(ctx, path, &v)
	v.Path = path
	return v, err
}
