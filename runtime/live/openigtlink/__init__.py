"""OpenIGTLink, which 3D Slicer, PLUS, MITK and simulators speak: messages, a server, a client."""
