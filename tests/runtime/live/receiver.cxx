// Receives messages by the reference library and says what it sees in them. Arguments: port, count.
#include <cstdio>
#include <cstdlib>

#include <openigtlink/igtlClientSocket.h>
#include <openigtlink/igtlImageMessage.h>
#include <openigtlink/igtlMessageHeader.h>

int main(int, char** argv) {
  igtl::ClientSocket::Pointer socket = igtl::ClientSocket::New();
  if (socket->ConnectToServer("127.0.0.1", std::atoi(argv[1])) != 0) return 1;
  for (int count = std::atoi(argv[2]); count > 0; --count) {
    igtl::MessageHeader::Pointer header = igtl::MessageHeader::New();
    header->InitPack();
    if (socket->Receive(header->GetPackPointer(), header->GetPackSize()) != header->GetPackSize())
      return 2;
    header->Unpack();
    igtl::ImageMessage::Pointer image = igtl::ImageMessage::New();
    image->SetMessageHeader(header);
    image->AllocatePack();
    const int size = image->GetPackBodySize();
    if (socket->Receive(image->GetPackBodyPointer(), size) != size) return 3;
    if (!(image->Unpack(1) & igtl::MessageHeader::UNPACK_BODY)) return 4;  // the checksum too
    int sides[3];
    float spacing[3];
    igtl::Matrix4x4 matrix;
    image->GetDimensions(sides);
    image->GetSpacing(spacing);
    image->GetMatrix(matrix);
    const unsigned char* pixels = static_cast<unsigned char*>(image->GetScalarPointer());
    long sum = 0;
    for (int i = 0; i < image->GetImageSize(); ++i) sum += pixels[i];
    std::printf("%s %s %d %d %d %d %g %g %g %g %d %ld\n", header->GetDeviceType(),
                header->GetDeviceName(), sides[0], sides[1], sides[2], image->GetNumComponents(),
                spacing[0], spacing[1], matrix[0][3], matrix[1][3], pixels[1], sum);
    std::fflush(stdout);
  }
  return 0;
}
