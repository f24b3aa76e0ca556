"""Networks as plain torch modules: the promptable U-Net, the registration network and the tracker made of both."""
