"""Where EasyRemote has its exceptions."""
